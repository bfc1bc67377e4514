"""Fixtures that several test folders share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and goldens beside the checkout; tests that need it are skipped where it is absent."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"{path} is absent: no goldens and no real data on this machine")
    return path


@pytest.fixture(scope="session")
def small_weights():
    """Maker of a small untrained model of all networks: small_weights(image_size=128, num_keypoints=10, seed=0)."""
    from animation.untrained import untrained_weights

    return untrained_weights
