"""Faces are found upright and tilted, none where there is none, and framed as the training data's stand."""

import cv2
import numpy as np
import pytest
import skimage.data

from datasets.errors import DataError
from datasets.face.finder import find_faces
from datasets.face.upright import FACE_CENTRE, SQUARE_PER_FACE, choose_frame, cut


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def turned(image_HW3: np.ndarray, degrees: float) -> np.ndarray:
    """The picture turned clockwise about its middle, mirrored at the borders."""
    height, width = image_HW3.shape[:2]
    matrix_23 = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
    return cv2.warpAffine(image_HW3, matrix_23, (width, height), borderMode=cv2.BORDER_REFLECT_101)


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30, 60, 180])
def test_a_tilted_face_is_found_with_its_roll(astronaut, degrees):
    upright, tilted = find_faces(astronaut), find_faces(turned(astronaut, degrees))
    assert len(upright) == len(tilted) == 1
    difference = np.degrees(tilted[0].roll - upright[0].roll) - degrees
    assert abs((difference + 180) % 360 - 180) < 2.5


def test_a_badge_is_not_taken_for_the_face(astronaut):
    """Turned by so much, the mesh sees something of a face in the patch on her sleeve, which is larger than hers."""
    for degrees in (-10, -20):
        matrix_23 = cv2.getRotationMatrix2D((256, 256), -degrees, 1.0)
        (face,) = find_faces(cv2.warpAffine(astronaut, matrix_23, (512, 512), flags=cv2.INTER_CUBIC))
        assert 130 < face.box[0] < 160 and face.sure > 30


@pytest.mark.parametrize("change", ["dark", "bright", "blurred", "sunglasses", "grey", "small"])
def test_a_face_is_found_in_bad_light_and_behind_glasses(astronaut, change):
    image = astronaut.copy()
    if change == "sunglasses":
        for centre in ((203, 103), (248, 106)):
            cv2.ellipse(image, centre, (22, 14), 0, 0, 360, (0, 0, 0), -1)
    elif change == "small":
        image = np.full((640, 900, 3), 127, np.uint8)
        image[100:228, 300:428] = cv2.resize(astronaut, (128, 128), interpolation=cv2.INTER_AREA)
    else:
        image = {
            "dark": lambda: astronaut // 4,
            "bright": lambda: cv2.convertScaleAbs(astronaut, alpha=1.8, beta=60),
            "blurred": lambda: cv2.GaussianBlur(astronaut, (0, 0), 2.5),
            "grey": lambda: np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
        }[change]()
    assert len(find_faces(image)) == 1


@pytest.mark.parametrize(
    "name",
    ["coffee", "chelsea", "rocket", "coins", "page", "moon", "hubble_deep_field", "brick", "gravel", "clock", "logo"],
)
def test_pictures_without_faces_have_none(name):
    image = np.asarray(getattr(skimage.data, name)())
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]
    assert find_faces(np.ascontiguousarray(image)) == []


def test_small_grey_faces_and_what_is_none():
    """Of scikit-image's 100 faces and 100 other cuts of 25x25 pixels: 96 and 0 (measured)."""
    pictures = (skimage.data.lfw_subset()[::4] * 255).astype(np.uint8)
    pictures = [cv2.resize(np.dstack([grey] * 3), (100, 100), interpolation=cv2.INTER_CUBIC) for grey in pictures]
    found = np.array([len(find_faces(picture)) for picture in pictures])
    assert (found[:25] == 1).sum() >= 23 and not found[25:].any()


def test_a_face_whose_eyes_are_cut_off_is_none(astronaut):
    assert find_faces(np.ascontiguousarray(astronaut[112:])) == []


@pytest.mark.parametrize("size", [(32, 32), (40, 300), (300, 40)])
def test_narrow_pictures_do_not_break_the_search(size):
    assert find_faces(np.full((*size, 3), 120, np.uint8)) == []


# ---- frames


@pytest.mark.parametrize("degrees", [0, 20, -30])
def test_the_face_stands_upright_at_the_trained_scale_and_place(astronaut, degrees):
    image = turned(astronaut, degrees)
    framing = choose_frame(image)
    assert framing.notices == []
    (face,) = find_faces(cut(image, framing.frame, 256))
    centre_2, size_2 = face.upright_box
    assert abs(np.degrees(face.roll)) < 4  # up to 3 nothing is turned
    assert size_2[1] == pytest.approx(256 / SQUARE_PER_FACE, rel=0.05)
    np.testing.assert_allclose(centre_2 / 256, FACE_CENTRE, atol=0.03)


def test_a_nearly_upright_face_is_not_turned(astronaut):
    frame = choose_frame(astronaut).frame
    assert frame.right_2[1] == 0 and frame.side == round(frame.side)
    left, top = (round(value + 0.5) for value in frame.corner_2)
    side = round(frame.side)
    np.testing.assert_array_equal(cut(astronaut, frame, side), astronaut[top : top + side, left : left + side])


def test_cutting_keeps_the_place_of_every_pixel(astronaut):
    """A turned frame, cut at half its size, shows at (x, y) what the picture has at matrix @ (x, y, 1)."""
    smooth = cv2.GaussianBlur(turned(astronaut, 20), (0, 0), 3)
    frame = choose_frame(turned(astronaut, 20)).frame
    small = cut(smooth, frame, 90)
    for x, y in ((20, 30), (60, 40), (45, 70)):
        px, py = frame.matrix(90) @ (x, y, 1)
        assert np.abs(small[y, x].astype(int) - smooth[round(py), round(px)]).max() < 12


def test_of_two_faces_the_larger_is_taken_and_the_other_can_be(astronaut):
    part = astronaut[0:220, 110:330]
    beside = np.full((220, 400, 3), 128, np.uint8)
    beside[:, :220] = part
    beside[60:200, 240:380] = cv2.resize(part, (140, 140), interpolation=cv2.INTER_AREA)
    first = choose_frame(beside)
    assert "2 faces found: 1 at" in first.notices[0] and "--face N" in first.notices[0]
    second = choose_frame(beside, face=2)
    assert second.notices == [] and second.frame.corner_2[0] > 220 > first.frame.corner_2[0]
    with pytest.raises(DataError, match=r"--face 3: the picture has 2 face"):
        choose_frame(beside, face=3)


def test_no_face_gives_the_centre_square_and_says_so():
    framing = choose_frame(np.full((120, 200, 3), 90, np.uint8))
    assert framing.frame.corner_2 == (39.5, -0.5) and framing.frame.side == 120
    assert "no face found" in framing.notices[0]
    with pytest.raises(DataError, match="no face was found"):
        choose_frame(np.full((120, 200, 3), 90, np.uint8), face=1)


def test_a_face_upside_down_is_turned_and_remarked(astronaut):
    framing = choose_frame(astronaut[::-1, ::-1])
    assert "right way up" in framing.notices[0] and framing.frame.right_2[0] < 0


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((10, 20, 60, 60), (10, 20, 60)),
        ((10, 20, 60, 40), (10, 10, 60)),  # grows to a square
        ((150, 0, 50, 40), (150, 0, 50)),  # moved inside
        ((0, 0, 200, 40), (40, 0, 120)),  # no larger than the short side
    ],
)
def test_a_given_box(box, square):
    frame = choose_frame(np.zeros((120, 200, 3), np.uint8), box=box).frame
    assert (frame.corner_2[0] + 0.5, frame.corner_2[1] + 0.5, frame.side) == square


@pytest.mark.parametrize(
    ("box", "words"), [((150, 0, 60, 60), "leaves the picture"), ((0, 0, 10, 60), "must be 32 or more")]
)
def test_a_bad_box_is_refused(box, words):
    with pytest.raises(DataError, match=words):
        choose_frame(np.zeros((120, 200, 3), np.uint8), box=box)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 20)])
def test_tiny_pictures_are_refused(size):
    with pytest.raises(DataError, match="at least 32 pixels"):
        choose_frame(np.zeros((*size, 3), np.uint8))


def test_the_whole_picture(astronaut):
    part = astronaut[:100]
    frame = choose_frame(part, "none").frame
    np.testing.assert_array_equal(cut(part, frame, 64), cv2.resize(part, (64, 64)))
    with pytest.raises(DataError, match="auto or none"):
        choose_frame(part, "face")
