"""Which frame comes from which window of the motion field generator.

Windows overlap by half. The first and last quarter of a window know little of what lies beyond it, so a frame is taken
from the window in whose middle half it lies; the first window gives its first three quarters. With the paper's T = 64
this is the released program's schedule: frames 0-47 from window 0, then 32 frames a window.
"""

from typing import NamedTuple


class Emission(NamedTuple):
    """Slots `first` to `stop - 1` of window `window` are kept; slot s of window w is frame w * window_length / 2 + s."""

    window: int
    first: int
    stop: int


def emission_schedule(num_frames: int, window_length: int) -> list[Emission]:
    """Windows to run for `num_frames` >= 1 frames, in order; together they give every frame exactly once."""
    hop, quarter = window_length // 2, window_length // 4
    schedule = []
    window = 0
    while True:
        first = 0 if window == 0 else quarter
        stop = min(window_length - quarter, num_frames - window * hop)
        schedule.append(Emission(window, first, stop))
        if window * hop + stop >= num_frames:
            return schedule
        window += 1
