"""The one error of an evaluation that no file causes alone."""


class EvaluationError(ValueError):
    """An evaluation that cannot be done as asked. One sentence: what was found, what to do."""
