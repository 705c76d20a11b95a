"""Functions that commands, reports and training share: score, translate, open a run with its data."""
