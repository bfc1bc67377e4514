"""Seconds by stage."""

import pytest

from animation import progress
from animation.progress import Clock


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets: now[0], in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_stage_within_another_counts_for_itself_alone(now):
    seconds = {}
    clock = Clock(seconds)

    def motion():
        for _ in range(2):
            now[0] += 3
            yield "keypoints"

    def rendering(chunks):
        for chunk in chunks:
            now[0] += 5
            yield chunk

    for _ in clock.each("rendering", rendering(clock.each("motion field", motion()))):
        with clock("writing"):
            now[0] += 1
        now[0] += 100  # between stages
    assert seconds == {"motion field": 6, "rendering": 10, "writing": 2}


def test_a_stage_that_fails_has_taken_its_time_all_the_same(now):
    seconds = {}
    clock = Clock(seconds)
    with pytest.raises(ValueError, match="wrong"), clock("outer"), clock("inner"):
        now[0] += 2
        raise ValueError("wrong")
    with clock("outer"):
        now[0] += 1
    assert seconds == {"inner": 2, "outer": 1}
