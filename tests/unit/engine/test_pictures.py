"""Sheets of sample pictures, at the sizes that trainings have."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.pictures import CELL, TITLE_HEIGHT, save_columns, with_points


@pytest.mark.parametrize("size", [64, 128, 256])  # the smoke runs', the small presets', the paper's
def test_a_sheet_holds_pictures_and_the_smaller_maps_beside_them(tmp_path: Path, size: int) -> None:
    source = torch.zeros(2, 3, size, size)
    source[1] = 1
    marked = with_points(source, torch.tensor([[[0.0, 0.0]], [[0.5, -0.5]]]))
    columns = {"source": marked, "occlusion": torch.ones(2, 1, size // 4, size // 4), "prediction": source}
    save_columns(tmp_path / "sheet.png", columns)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    side = max(CELL, size)
    assert sheet.shape == (TITLE_HEIGHT + 2 * side, 3 * side, 3)
    first = sheet[TITLE_HEIGHT : TITLE_HEIGHT + side]
    assert np.ptp(first[side // 2, side // 2]) > 100 and first[4, 4].max() == 0  # the point in its middle
    assert (sheet[TITLE_HEIGHT:, side : 2 * side] == 255).all()
    assert (sheet[TITLE_HEIGHT : TITLE_HEIGHT + side, 2 * side :] == 0).all()
    assert (sheet[TITLE_HEIGHT + side :, 2 * side :] == 255).all()
