"""The command line: the Trainer's verbs, and one file for each other verb, imported only when called."""
