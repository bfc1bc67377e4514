"""inference.py, from files to files, against the reference implementation (README.md of this folder).

Nothing is taken from the recording on the way: features, head poses, keypoints and frames are each compared as they
come out of one run. Tolerances are some ten times what float32 differs from float64 by in the reference itself.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import inference
from animation.motion_file import Motion, load_motion
from datasets import audio
from datasets.media.image import read_image
from datasets.media.sound import load_pcm
from datasets.pose import render_boxes
from tests.golden.recording import FRAMES, NATIVE, animate_astronaut, close, levels_off, read_recording
from tests.in_process import status_of


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return read_recording()


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory) -> Path:
    """What one run of inference.py has written: motion.npz and frames/."""
    folder = tmp_path_factory.mktemp("parity")
    animate_astronaut(folder, checkpoint, "cpu")
    return folder


@pytest.fixture(scope="module")
def motion(folder) -> Motion:
    return load_motion(folder / "motion.npz")


@pytest.fixture(scope="module")
def same_boxes(motion, golden) -> None:
    """Ends of a pose's lines are cut to whole pixels; frame 13 has one 7e-5 pixels from the next number."""
    recorded = np.concatenate([golden["rotation"], golden["translation"]], axis=1)[:FRAMES]
    if not np.array_equal(render_boxes(motion.head_pose), render_boxes(recorded)):
        pytest.skip("this machine's rounding of the head poses moves an end of a line by a pixel")


def test_features_of_the_speech(folder, golden):
    pcm = load_pcm(folder / "speech.wav")
    np.testing.assert_allclose(audio.feature_rows(pcm), golden["features"], rtol=1e-6, atol=1e-6)
    used_TAF = audio.features(pcm)
    assert used_TAF.shape == (FRAMES, 4, 41)  # 3 of the 199 rows make no whole frame
    np.testing.assert_allclose(used_TAF.reshape(-1, 41), golden["features"][: 4 * FRAMES], rtol=1e-6, atol=1e-6)


def test_head_poses(motion, golden):
    """Frame i has row i of the T + 1 predicted ones: the released program's way."""
    close(motion.head_pose[:, :3], golden["rotation"][:FRAMES], 2e-5)  # rad
    close(motion.head_pose[:, 3:], golden["translation"][:FRAMES], 5e-3)  # mm


def test_keypoints_of_the_picture(motion, golden):
    close(motion.source_keypoints, golden["source_position"], 2e-5)
    close(motion.source_jacobians, golden["source_jacobian"], 2e-5)


def test_keypoints_of_every_frame(motion, golden, same_boxes):
    frames, windows, slots = golden["emitted"].T
    np.testing.assert_array_equal(frames, np.arange(FRAMES))
    close(motion.keypoints, golden["position"][windows, slots], 5e-5)
    close(motion.jacobians, golden["jacobian"][windows, slots], 5e-5)


def test_frames(folder, golden, same_boxes):
    """Truncation to 8 bits turns the smallest difference into one level; that must stay rare."""
    difference = levels_off(folder, golden)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_bf16_keeps_40_db(folder, checkpoint, golden, same_boxes):
    """What `--precision auto` chooses where the machine computes in it, on the frames that fp32 is held to above."""
    options = [*NATIVE, "--precision", "bf16", "--device", "cpu"]
    short = load_motion(folder / "motion.npz")
    chosen = golden["frame_numbers"][::2]
    replace(short, keypoints=short.keypoints[chosen], jacobians=short.jacobians[chosen]).save(folder / "short.npz")
    files = ["--image", folder / "astronaut.png", "--motion", folder / "short.npz", "--output", folder / "bf16.mp4"]
    files += ["--frames-dir", folder / "bf16", "--checkpoint", checkpoint]
    assert status_of(inference.main, *files, *options) == 0
    frames = np.stack([read_image(picture) for picture in sorted((folder / "bf16").glob("*.png"))])
    error = np.square(frames.astype(float) - golden["frames"][::2]).mean(axis=(1, 2, 3))
    assert len(frames) == len(chosen) and (error > 0).all()  # it is another precision
    assert (10 * np.log10(255**2 / error)).min() >= 40
