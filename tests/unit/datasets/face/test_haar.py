"""Finding the face in a picture, and the square about it."""

import cv2
import numpy as np
import pytest

from datasets.errors import DataError
from datasets.face.haar import crop_face, find_faces, framing
from datasets.media.image import read_image


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """Smooth colours without a face."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // max(1, width), y * 255 // max(1, height), (x + y) % 256], axis=-1).astype(np.uint8)


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
def test_pictures_framed_as_the_training_data_stay_whole(extra_data, name):
    crop = crop_face(read_image(extra_data / "data" / "images" / name), "auto")
    assert crop.box == (0, 0, 256, 256) and crop.notice is None
