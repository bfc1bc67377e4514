"""What is read off a face mesh: mouths and eyes."""

import numpy as np
import pytest

from datasets.face.mesh import EYE_CORNERS, LOWER_LIDS, POINTS, UPPER_LIDS, eyes_of


def test_eyes_are_told_apart_and_measured() -> None:
    mesh = np.zeros((2, POINTS, 3), np.float32)
    for eye, (x, opening) in enumerate(((100, 8), (160, 2))):
        for corner, side in zip(EYE_CORNERS[eye], (-12, 12), strict=True):
            mesh[:, corner, :2] = x + side, 90
        for upper, lower, across in zip(UPPER_LIDS[eye], LOWER_LIDS[eye], (-5, 0, 5), strict=True):
            mesh[:, upper, :2] = x + across, 90 - opening / 2
            mesh[:, lower, :2] = x + across, 90 + opening / 2
    mesh[1] = np.nan  # no face there
    eyes = eyes_of(mesh)
    assert eyes.shape == (2, 2, 4)
    assert eyes[0].tolist() == [pytest.approx([100, 90, 24, 8]), pytest.approx([160, 90, 24, 2])]
    assert np.isnan(eyes[1]).all()
