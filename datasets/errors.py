"""The errors that input and output files cause."""


class DataError(ValueError):
    """A file that a user named cannot be used. One sentence: which file, what is wrong, what to do."""


class DiskFullError(DataError):
    """There is no room for a file: no fault of any input, so work that could go on with the next one stops."""
