"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest

from tests.extra_data import EXTRA_DATA, WHY_SKIPPED


def pytest_configure(config: pytest.Config) -> None:
    """Only the tests marked `gpu` see a GPU, when they are asked for: on one, equal runs differ in their last bits."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def extra_data() -> Path:
    """The folder of optional data; tests that need it are skipped where it is absent."""
    if not EXTRA_DATA.is_dir():
        pytest.skip(WHY_SKIPPED)
    return EXTRA_DATA


@pytest.fixture(scope="session")
def small_weights():
    """Maker of a small untrained model: small_weights(image_size=128, num_keypoints=10, seed=0)."""
    from tests.untrained import untrained_weights

    return untrained_weights
