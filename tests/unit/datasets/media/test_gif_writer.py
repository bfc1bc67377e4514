"""GIF previews: short, small, marked, whole or not at all."""

import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import provenance
from datasets.errors import DataError
from datasets.media.gif_writer import GifWriter
from tests.certificates import make_certificate


def frames(count: int, height=60, width=80) -> np.ndarray:
    """Each of its own grey, 0, 3, 6 ..."""
    return np.repeat(np.arange(count, dtype=np.uint8) * 3, height * width * 3).reshape(count, height, width, 3)


def test_every_second_frame_in_its_time_and_marked(tmp_path):
    with GifWriter(tmp_path / "a.gif") as writer:
        for batch in np.split(frames(20), [7, 13]):
            writer.write(batch)
    assert not writer.is_cut
    image = Image.open(tmp_path / "a.gif")
    assert (image.n_frames, image.size, image.info["duration"], image.info["loop"]) == (10, (80, 60), 80, 0)
    image.seek(4)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 24).max() <= 2
    (mark,) = provenance.read_marks(tmp_path / "a.gif")
    assert "Synthetic media" in mark and provenance.SOURCE_TYPE in mark


def test_it_is_short_and_small(tmp_path):
    with GifWriter(tmp_path / "a.gif", fps=2) as writer:
        writer.write(frames(30, 90, 960))
    assert writer.is_cut
    image = Image.open(tmp_path / "a.gif")
    assert (image.n_frames, image.size) == (10, (480, 45))


def test_nothing_is_left_after_an_error(tmp_path):
    with pytest.raises(KeyError), GifWriter(tmp_path / "a.gif") as writer:
        writer.write(frames(3))
        raise KeyError
    with pytest.raises(DataError, match="no frame to write"), GifWriter(tmp_path / "a.gif"):
        pass
    with pytest.raises(DataError, match="does not exist"), GifWriter(tmp_path / "no" / "a.gif"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with the openssl program")
def test_a_gif_can_be_signed(tmp_path):
    certificate, key, _ = make_certificate(tmp_path)
    with GifWriter(tmp_path / "a.gif", signature=provenance.Signature(certificate, key)) as writer:
        writer.write(frames(4))
    assert any(mark.startswith("C2PA") for mark in provenance.read_marks(tmp_path / "a.gif"))
