"""The command line: the Trainer's commands, and one file per other command, imported only when called."""
