"""What unit tests of several scripts look at."""

import pytest

from modules.random_warp import RandomWarp


@pytest.fixture
def warped_how(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The conventions (align_corners) by which pictures have been warped, in order."""
    seen: list[bool] = []
    image = RandomWarp.image
    monkeypatch.setattr(RandomWarp, "image", lambda self, picture, how: seen.append(how) or image(self, picture, how))
    return seen
