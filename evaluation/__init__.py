"""Measuring: what `evaluate.py` generates, scores and reports. The protocol is in docs/EVALUATION.md."""
