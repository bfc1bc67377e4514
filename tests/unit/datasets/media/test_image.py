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
from datasets.media.source import read_source
from datasets.media.video_writer import VideoWriter

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


def test_cut_outs_are_laid_on_the_background(tmp_path):
    rgba = np.dstack([picture(), np.full((40, 60), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for name, colour in (("#102030", [16, 32, 48]), ("teal", [0, 128, 128])):
        assert (read_image(tmp_path / "a.png", name)[:10] == colour).all()
    with pytest.raises(DataError, match="is no colour"):
        read_image(tmp_path / "a.png", "nosuchcolour")


def test_pictures_of_iphones(tmp_path):
    from pillow_heif import from_pillow

    from_pillow(Image.fromarray(cv2.GaussianBlur(picture(64, 96), (0, 0), 3))).save(tmp_path / "a.heic", quality=95)
    read = read_image(tmp_path / "a.heic")
    assert read.shape == (64, 96, 3) and np.abs(read[50, 80].astype(int) - RED).max() < 8


def test_colour_profiles_become_srgb(tmp_path):
    """The profile of a camera whose channels are green, blue, red; and sRGB's own, which leaves every bit."""
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture()).save(tmp_path / "srgb.png", icc_profile=srgb)
    np.testing.assert_array_equal(read_image(tmp_path / "srgb.png"), picture())
    turned = turned_primaries(srgb)
    Image.fromarray(picture()[..., [1, 2, 0]]).save(tmp_path / "gbr.png", icc_profile=turned)
    np.testing.assert_allclose(read_image(tmp_path / "gbr.png"), picture(), atol=4)
    rgba = np.dstack([picture()[..., [1, 2, 0]], np.full((40, 60), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "alpha.png", icc_profile=turned)
    np.testing.assert_allclose(read_image(tmp_path / "alpha.png")[10:], picture()[10:], atol=4)
    Image.fromarray(picture()).save(tmp_path / "broken.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(read_image(tmp_path / "broken.png"), picture())


def turned_primaries(profile: bytes) -> bytes:
    """An RGB profile whose first channel is green, whose second is blue, whose third is red."""
    count = int.from_bytes(profile[128:132], "big")
    entries = {profile[at : at + 4]: at for at in range(132, 132 + 12 * count, 12)}
    turned = bytearray(profile)
    for name, source in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"bXYZ"), (b"bXYZ", b"rXYZ")):
        to, source_at = entries[name], entries[source]
        turned[to + 4 : to + 12] = profile[source_at + 4 : source_at + 12]
    return bytes(turned)


def test_floats_and_wide_integers(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey / np.float32(255)).save(tmp_path / "float.tiff")
    Image.fromarray((grey.astype(np.int64) * (2**31 - 1) // 255).astype(np.int32)).save(tmp_path / "wide.tiff")
    for name in ("float.tiff", "wide.tiff"):
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 0], grey)
    cv2.imwrite(str(tmp_path / "colour.tiff"), picture()[..., ::-1] / np.float32(255))
    np.testing.assert_array_equal(read_image(tmp_path / "colour.tiff"), picture())
    values = np.full((16, 16), np.nan, np.float32)
    values[0, 0] = 2.5  # a light
    Image.fromarray(values).save(tmp_path / "holes.tiff")
    assert read_image(tmp_path / "holes.tiff")[..., 0].tolist() == [[255, *[0] * 15], *[[0] * 16] * 15]


def test_the_first_frame_of_a_video_is_a_source(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", crf=1) as writer:
        writer.write(np.stack([picture(64, 96), np.zeros((64, 96, 3), np.uint8)]))
    image, notices = read_source(tmp_path / "a.mp4")
    assert np.abs(image[50, 80].astype(int) - RED).max() < 8
    assert "first frame" in notices[0]
    write_png(tmp_path / "a.png", picture())
    assert read_source(tmp_path / "a.png")[1] == []
    for name in ("a.txt", "b.mp4"):
        (tmp_path / name).write_text("neither\n" * 100)
        with pytest.raises(DataError, match="not a picture"):
            read_source(tmp_path / name)


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
