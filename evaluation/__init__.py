"""Measuring: what `evaluate.py` generates, scores and reports. The protocol is in docs/EVALUATION.md."""


class EvaluationError(ValueError):
    """An evaluation that cannot be done as asked. One sentence: what was found, what to do."""
