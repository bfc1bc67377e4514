"""The user study of the paper: `python -m evaluation.study`."""
