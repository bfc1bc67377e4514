"""The filled checkpoint that all parity tests of inference run."""

from pathlib import Path

import pytest
import torch

from tests.golden.filled_checkpoint import checksum, filled, read_manifest

# Those of the checkpoint with which the reference implementation was recorded.
CHECKSUMS = {"audio2pose": "15f162e9", "audio2kp": "a1268803", "kp_detector": "7a322f60", "generator": "04c33860"}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A file in the released layout, filled with reproducible numbers."""
    modules = filled(read_manifest())
    assert {module: checksum(state) for module, state in modules.items()} == CHECKSUMS
    path = tmp_path_factory.mktemp("released") / "audio2head.pth.tar"
    torch.save(modules, path)
    return path
