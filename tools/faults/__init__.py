"""The attack on arlm as a command: faults are injected by the hundred, and what came of each is counted.

    python -m tools.faults [--long] [--kinds ...] [--seed N] [--out TABLE.md]

    this process: imports arlm once
       |  fork
       |-- child: arlm fit ...           signal at a random instant --> resumed until it ends --> equal to the reference?
       |-- child: arlm show DAMAGED      --> the sound file's result, or one line and exit code 2
       `-- ...                           nothing lost, nothing executed, nothing hung

`children` starts commands, `outcome` judges them, `table` counts. Each kind of fault is a module with a function
`inject`: `interruptions`, `unsynced`, `surroundings`, `processes`, `damage` and `crafted`.
"""
