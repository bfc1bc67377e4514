"""The figures of the paper: `python -m evaluation.figures`."""
