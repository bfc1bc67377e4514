"""Scores of pictures against values by hand."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from evaluation.scores import fidelity
from evaluation.scores.networks import Networks
from modules import measures
from tests.unit.evaluation.toys import CPU, MOUTH, noise


def test_psnr_of_ten_levels_and_ssim_of_equals():
    image, wanted = np.full((3, 32, 32, 3), 110, np.uint8), np.full((3, 32, 32, 3), 100, np.uint8)
    scores = fidelity.picture_scores(image, wanted, np.tile(MOUTH, (3, 1)), Networks(CPU))
    assert scores["psnr"] == pytest.approx(20 * np.log10(25.5), abs=1e-4) == pytest.approx(scores["mouth_psnr"])
    assert "lpips" not in scores
    same = fidelity.picture_scores(
        noise(0, 3, 32, 32, 3), noise(0, 3, 32, 32, 3), np.tile(MOUTH, (3, 1)), Networks(CPU)
    )
    assert same["psnr"] == pytest.approx(100) and same["ssim"] == pytest.approx(1)


def test_the_mouth_counts_inside_its_box_only():
    wanted = noise(1, 40, 64, 64, 3)
    at_mouth, elsewhere = wanted.copy(), wanted.copy()
    at_mouth[:, 43:47, 30:34] //= 2  # pixel 32 of 64 is 128 of 256, 45 is 180
    elsewhere[:, 5:9, 30:34] //= 2
    mouth = np.tile(MOUTH, (40, 1))
    mouth[0] = np.nan  # a frame without a mouth does not count
    hit, missed = (fidelity.picture_scores(image, wanted, mouth, Networks(CPU)) for image in (at_mouth, elsewhere))
    assert missed["mouth_psnr"] == pytest.approx(100) and missed["mouth_ssim"] == pytest.approx(1)
    assert hit["mouth_psnr"] < 30 and hit["mouth_ssim"] < 0.99 and hit["psnr"] == pytest.approx(missed["psnr"], abs=0.5)
    nowhere = fidelity.picture_scores(at_mouth, wanted, np.full((40, 4), np.nan), Networks(CPU))
    assert np.isnan(nowhere["mouth_psnr"]) and np.isnan(nowhere["mouth_ssim"])


def test_box_ssim_is_the_mean_of_skimages_map_in_the_box():
    a, b = noise(2, 48, 48) / 255, noise(3, 48, 48) / 255
    b = 0.7 * a + 0.3 * b
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, whole = structural_similarity(a, b, full=True, **settings)
    tensors = (torch.from_numpy(x).float().expand(1, 3, 48, 48) for x in (a, b))
    step = 2 / 47  # pixel 10 to 29
    box = torch.tensor([[-1 + 9.5 * step, -1 + 11.5 * step, -1 + 29.5 * step, -1 + 30.5 * step]])
    assert measures.box_ssim(*tensors, box).item() == pytest.approx(whole[12:31, 10:30].mean(), abs=1e-4)


def test_fid_of_shifted_features_is_the_squared_shift():
    features = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    assert fidelity.frechet_inception_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert fidelity.frechet_inception_distance(features, features + 0.5) == pytest.approx(16 * 0.25, rel=1e-4)
