"""The one error that input and output files cause."""


class DataError(ValueError):
    """A file that a user named cannot be used. One sentence: which file, what is wrong, what to do."""
