"""Marks of synthetic origin: written, found again, absent where they are not."""

import shutil
import tomllib
from pathlib import Path

import av
import numpy as np
import pytest

from datasets import command, provenance
from datasets.errors import DataError
from datasets.media.image import write_png
from datasets.media.video_writer import VideoWriter, write_frames
from tests.certificates import make_certificate

FRAMES = np.full((10, 64, 64, 3), 90, np.uint8)

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="makes certificates with the openssl program"
)


def write(path: Path, **options) -> Path:
    with VideoWriter(path, **options) as writer:
        writer.write(FRAMES)
    return path


def plain_video(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(FRAMES[0], format="rgb24")))
        output.mux(stream.encode(None))
    return path


def test_version_is_the_project_s():
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert settings["project"]["version"] == provenance.VERSION


def test_every_video_carries_metadata_and_xmp(tmp_path, capsys):
    path = write(tmp_path / "a.mp4")
    marks = provenance.read_marks(path)
    assert f"metadata: digital_source_type = {provenance.SOURCE_TYPE}" in marks
    assert f"XMP: DigitalSourceType = {provenance.SOURCE_TYPE}" in marks
    assert any(mark.startswith("metadata: comment = Synthetic") for mark in marks)
    assert provenance.main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == marks


def test_the_xmp_box_is_a_whole_top_level_box(tmp_path):
    data = write(tmp_path / "a.mp4").read_bytes()
    kinds, position = [], 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        assert size >= 8
        kinds.append(data[position + 4 : position + 8])
        position += size
    assert position == len(data) and kinds[-1] == b"uuid" and b"moov" in kinds
    assert provenance.XMP_BOX in data


def test_each_mark_is_found_alone(tmp_path):
    path = write(tmp_path / "a.mp4")
    data = path.read_bytes()
    (tmp_path / "no_xmp.mp4").write_bytes(data[: data.rindex(b"uuid") - 4])
    marks = provenance.read_marks(tmp_path / "no_xmp.mp4")
    assert marks and not any(mark.startswith("XMP") for mark in marks)
    plain = plain_video(tmp_path / "plain.mp4")
    provenance.append_xmp(plain)
    assert provenance.read_marks(plain) == [f"XMP: DigitalSourceType = {provenance.SOURCE_TYPE}"]


def test_xmp_of_other_programs_is_understood(tmp_path):
    """The attribute form, as exiftool and Photoshop may write it, and a broken packet, which marks nothing."""
    plain = plain_video(tmp_path / "plain.mp4")
    attribute = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:i="{provenance.IPTC_EXT}" i:DigitalSourceType="else"/></rdf:RDF></x:xmpmeta>'
    )
    with plain.open("ab") as file:
        for packet in (b"<broken", attribute.encode()):
            file.write((24 + len(packet)).to_bytes(4, "big") + b"uuid" + provenance.XMP_BOX + packet)
    assert provenance.read_marks(plain) == ["XMP: DigitalSourceType = else"]


def test_saved_frames_are_marked(tmp_path):
    write_frames(tmp_path, 0, FRAMES[:1])
    marks = provenance.read_marks(tmp_path / "000000.png")
    assert f"metadata: digital_source_type = {provenance.SOURCE_TYPE}" in marks
    assert f"XMP: DigitalSourceType = {provenance.SOURCE_TYPE}" in marks


def test_unmarked_files_exit_with_1(tmp_path, capsys):
    write_png(tmp_path / "a.png", FRAMES[0])
    for path in (plain_video(tmp_path / "a.mp4"), tmp_path / "a.png"):
        assert provenance.main([str(path)]) == 1
        assert "carries no mark" in capsys.readouterr().out


def test_what_is_no_media_file_exits_with_2(tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("text\n" * 99)
    (tmp_path / "uuid.mp4").write_bytes(b"\0\0\0\0uuid" * 9)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    for name in ("missing.mp4", "empty.mp4", "text.mp4", "uuid.mp4", "cut.png", "."):
        with pytest.raises(SystemExit) as left:
            command.run(lambda name=name: provenance.main([str(tmp_path / name)]))
        assert left.value.code == 2, name
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error


# ---- C2PA


@needs_openssl
def test_signed_manifest(tmp_path):
    certificate, key, _ = make_certificate(tmp_path)
    signature = provenance.Signature(certificate, key)
    path = write(tmp_path / "a.mp4", signature=signature)
    marks = provenance.read_marks(path)
    assert marks[-1].startswith("C2PA: manifest signed by Test signer, validation state Valid")
    assert f"XMP: DigitalSourceType = {provenance.SOURCE_TYPE}" in marks  # signing keeps the other marks
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(FRAMES)

    data = bytearray(path.read_bytes())
    data[data.find(b"mdat") + 100] ^= 1
    (tmp_path / "changed.mp4").write_bytes(data)
    assert "validation state Invalid" in provenance.read_marks(tmp_path / "changed.mp4")[-1]


@needs_openssl
def test_manifest_names_the_source_type(tmp_path):
    import c2pa

    certificate, key, _ = make_certificate(tmp_path)
    path = write(tmp_path / "a.mp4", signature=provenance.Signature(certificate, key))
    with c2pa.Reader(str(path)) as reader:
        assert provenance.SOURCE_TYPE in reader.json() and "c2pa.created" in reader.json()


@needs_openssl
def test_keys_that_do_not_fit_are_known_at_once(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    certificate, key, root = make_certificate(tmp_path / "one")
    _, other_key, _ = make_certificate(tmp_path / "two")
    (tmp_path / "text.pem").write_text("no certificate")
    for bad in ((certificate, other_key), (root, key), (key, certificate), (tmp_path / "text.pem", key)):
        with pytest.raises(DataError, match="cannot sign"):
            provenance.Signature(*bad)
    with pytest.raises(DataError, match="no such certificate file"):
        provenance.Signature(tmp_path / "missing.pem", key)


# ---- the visible label


@pytest.mark.parametrize("size", [(256, 256), (64, 64), (32, 500), (20, 16)])
def test_label_is_small_and_in_the_corner(size):
    height, width = size
    frames = np.full((2, height, width, 3), 120, np.uint8)
    labelled = provenance.draw_label(frames)
    assert (frames == 120).all() and labelled.shape == frames.shape
    changed_HW = (labelled[0] != 120).any(axis=-1)
    assert changed_HW.any() and not changed_HW[: int(0.8 * height)].any()
    np.testing.assert_array_equal(labelled[0], labelled[1])
