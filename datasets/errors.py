"""The one error that a user's files can cause."""


class DataError(ValueError):
    """One sentence: what is wrong, in which file, and what to do."""
