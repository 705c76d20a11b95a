"""Random inputs for every reader and every option: a result or one line, within bounds of time and memory.

    originals    small networks and intact files
    strategies   damaged bytes, edited trees, unlikely values
    readers      what reads them, with the strategy of each
    outcomes     one input: a result, a refusal in one line, or a failure
    batches      many inputs, in processes with limits

`python -m tools.fuzz --examples 100000` runs all of it and prints a table.
"""
