"""Reading pictures of every kind, bad ones included; framing of faces."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.errors import DataError
from datasets.media.image import read_image, resize_square, resized, to_float, write_png

RED = (200, 40, 30)


def picture(height=40, width=60) -> np.ndarray:
    """Red, with a green left upper quarter: shows turns and swapped colours."""
    image = np.full((height, width, 3), RED, np.uint8)
    image[: height // 2, : width // 2] = (30, 180, 60)
    return image


@pytest.mark.parametrize(
    "name", ["a.png", "a.bmp", "a.tiff", "a.webp", "Ünï 你 'q\" .png", "%d.png", "no_ending_but.gif"]
)
def test_lossless_kinds(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(picture()).save(tmp_path / name, **options)
    np.testing.assert_allclose(read_image(tmp_path / name), picture(), atol=4 if name.endswith("gif") else 0)


def test_the_name_may_lie_about_the_kind(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png", format="JPEG", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[5:15, 5:25], picture()[5:15, 5:25], atol=12)


def test_grey_palette_and_cmyk(tmp_path):
    grey = Image.fromarray(picture()).convert("L")
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(np.asarray(grey)[..., None], 3, 2))
    Image.fromarray(picture()).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    np.testing.assert_allclose(read_image(tmp_path / "palette.png"), picture(), atol=4)
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "print.jpg")[25:35, 35:55], picture()[25:35, 35:55], atol=12)


def test_sixteen_bits_keep_the_high_byte(tmp_path):
    values = (np.arange(40 * 60).reshape(40, 60) * 27).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "grey.png"), values)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 0], values >> 8)
    colour = picture().astype(np.uint16) * 257
    for name in ("colour.png", "colour.tiff"):
        cv2.imwrite(str(tmp_path / name), colour[..., ::-1])
        np.testing.assert_array_equal(read_image(tmp_path / name), picture())


def test_alpha_is_dropped_unless_it_cuts_out(tmp_path):
    rgba = np.dstack([picture(), np.full((40, 60), 255, np.uint8)])
    rgba[0, 0, 3] = 0  # one hidden pixel is no cut-out: the released code's behaviour
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), picture())
    rgba[:10, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "cut_out.png")
    cut_out = read_image(tmp_path / "cut_out.png")
    assert (cut_out[:10] == 255).all()
    np.testing.assert_array_equal(cut_out[10:], picture()[10:])


@pytest.mark.parametrize(("orientation", "corner"), [(3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_rotation_is_applied(tmp_path, orientation, corner):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    turned = read_image(tmp_path / "a.png")
    assert turned.shape == ((40, 60, 3) if orientation == 3 else (60, 40, 3))
    assert turned[corner].tolist() == [30, 180, 60]  # where the green corner goes


def huge_png() -> bytes:
    """Header of a PNG of 100,000 x 100,000 pixels; no program should try to unpack it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.png", None, "no such picture file"),
        ("folder", "folder", "is a folder"),
        ("empty.png", b"", "is empty"),
        ("text.jpg", b"not a picture\n" * 50, "is not a picture"),
        ("sound.png", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40), "is not a picture"),
        ("cut.jpg", encoded("JPEG")[:2000], "is damaged or cut off"),
        ("cut.png", encoded("PNG")[:2000], "is damaged or cut off"),
        ("cut.webp", encoded("WEBP")[:500], "is damaged or cut off"),
        ("cut.bmp", encoded("BMP")[:2000], "is damaged or cut off"),
        ("bomb.png", huge_png(), "has too many pixels"),
    ],
)
def test_bad_files_get_one_clear_sentence(tmp_path, name, content, words):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_image(tmp_path / name)
    assert words in str(error.value) and name in str(error.value)
    assert "\n" not in str(error.value)


def test_png_round_trip_and_nothing_left_on_failure(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", noise, {"comment": "für 你"})
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), noise)
    assert Image.open(tmp_path / "a.png").text["comment"] == "für 你"
    with pytest.raises(TypeError):
        write_png(tmp_path / "b.png", np.zeros((4, 4), np.complex64))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_resizing_to_the_same_size_changes_nothing():
    square = picture(50, 50)
    np.testing.assert_array_equal(resize_square(square, 50), square)
    assert resize_square(picture(), 32).shape == (32, 32, 3)


def test_pictures_shrink_by_area_and_grow_bilinearly():
    square = picture(50, 50)
    assert resized(square, 50, 50) is square
    np.testing.assert_array_equal(resized(square, 25, 25), cv2.resize(square, (25, 25), interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(resized(square, 64, 80), cv2.resize(square, (80, 64), interpolation=cv2.INTER_LINEAR))


def test_pictures_become_tensors_of_0_to_1():
    frames = np.stack([picture(5, 7), 255 - picture(5, 7)])
    tensor = to_float(frames)
    assert tensor.shape == (2, 3, 5, 7) and tensor[1, 2, 3, 4] == frames[1, 3, 4, 2] / 255
