"""Tests see no GPU unless those that need one are asked for."""

import os
from types import SimpleNamespace

import pytest

from tests.conftest import pytest_configure


@pytest.mark.parametrize(("chosen", "sees"), [("", ""), ("not slow and not gpu", ""), ("gpu", "0")])
def test_no_test_but_those_marked_gpu_sees_one(monkeypatch: pytest.MonkeyPatch, chosen: str, sees: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    pytest_configure(SimpleNamespace(getoption=lambda name: chosen))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == sees
