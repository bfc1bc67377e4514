"""Reading pictures of every kind, bad ones included; framing of faces."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.errors import DataError
from datasets.face.haar import crop_face, find_faces, framing
from datasets.media.image import read_image, resize_square, write_png

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


# ---- faces


@pytest.mark.parametrize(
    ("face", "size", "square"),
    [
        ((100, 100, 200, 200), (400, 400), (62, 66, 237, 241)),  # 1.75 times the face, its centre at 0.5, 0.48
        ((0, 0, 100, 100), (400, 400), (0, 0, 175, 175)),  # moved inside
        ((300, 300, 400, 400), (400, 400), (225, 225, 400, 400)),
        ((30, 40, 180, 190), (256, 256), (0, 0, 256, 256)),  # framed already: stays whole
        ((20, 10, 150, 140), (160, 500), (0, 0, 160, 160)),  # does not fit: the short side
    ],
)
def test_framing(face, size, square):
    assert framing(face, *size) == square


def test_no_face_gives_the_centre_square_and_says_so():
    crop = crop_face(picture(120, 200), "auto")
    assert crop.box == (40, 0, 160, 120) and crop.image.shape == (120, 120, 3)
    assert "no face" in crop.notice


def test_no_crop_gives_the_whole_picture():
    crop = crop_face(picture(), "none")
    assert crop.image.shape == (40, 60, 3) and crop.notice is None
    with pytest.raises(DataError, match="auto or none"):
        crop_face(picture(), "face")


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (20, 20)])
def test_tiny_pictures_do_not_break_the_search(size):
    side = min(size)
    assert crop_face(picture(*size), "auto").image.shape == (side, side, 3)


@pytest.fixture(scope="module")
def astronaut():
    skimage_data = pytest.importorskip("skimage.data")
    return skimage_data.astronaut()


def test_a_face_is_found_and_framed(astronaut):
    crop = crop_face(astronaut, "auto")
    left, top, right, bottom = crop.box
    assert crop.notice is None
    assert 130 < left < 160 and 15 < top < 45 and 160 < right - left < 190 and right - left == bottom - top


def test_of_two_faces_the_larger_is_taken(astronaut):
    face = astronaut[0:220, 110:330]
    beside = np.full((220, 400, 3), 128, np.uint8)
    beside[:, :220] = face
    beside[60:200, 240:380] = cv2.resize(face, (140, 140), interpolation=cv2.INTER_AREA)
    crop = crop_face(beside, "auto")
    assert len(find_faces(beside)) == 2 and "2 faces" in crop.notice
    assert crop.box[2] <= 240


@pytest.mark.parametrize("name", ["01_paint_256.jpg", "02_statue_256.jpg"])
def test_pictures_framed_as_the_training_data_stay_whole(shared, name):
    crop = crop_face(read_image(shared / "data" / "images" / name), "auto")
    assert crop.box == (0, 0, 256, 256) and crop.notice is None
