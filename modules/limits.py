"""Limits of numbers in the configurations of networks; what is raised names the field."""

from typing import Any


def at_least(least: int, config: Any, *names: str) -> None:
    """Raises ValueError where one of these fields is smaller."""
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, found {getattr(config, name)}")


def one_nth(name: str, *scales: float) -> None:
    """Raises ValueError unless pictures can be thinned out to these scales: 1, 1/2, 1/3 ..."""
    if not scales or not all(0 < scale <= 1 and abs(round(1 / scale) * scale - 1) <= 1e-6 for scale in scales):
        raise ValueError(f"{name} must be 1/n with a whole n, found {', '.join(map(str, scales)) or 'none'}")
