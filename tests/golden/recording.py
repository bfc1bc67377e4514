"""The recording of the reference implementation, and the run of inference.py that must end in the same numbers."""

from pathlib import Path

import numpy as np
import skimage.data
import soundfile

import inference
from datasets.media.image import read_image, write_png
from tests.in_process import status_of

HERE = Path(__file__).parent
SPEECH = HERE.parents[1] / "assets" / "speech.wav"
SAMPLES = 32_000  # of the speech; 2.0 s
FRAMES = 49
NATIVE = ("--crop", "none", "--size", "native")


def read_recording() -> dict[str, np.ndarray]:
    with np.load(HERE / "astronaut_speech.npz") as file:
        return dict(file)


def animate_astronaut(folder: Path, checkpoint: Path, device: str) -> None:
    """Write motion.npz and frames/ into a folder, in float32, beside picture and sound."""
    write_png(folder / "astronaut.png", skimage.data.astronaut())
    samples, rate = soundfile.read(SPEECH, frames=SAMPLES, dtype="int16")
    soundfile.write(folder / "speech.wav", samples, rate, subtype="PCM_16")
    files = ["--image", folder / "astronaut.png", "--audio", folder / "speech.wav", "--output", folder / "out.mp4"]
    kept = ["--save-motion", folder / "motion.npz", "--frames-dir", folder / "frames"]
    options = [*NATIVE, "--precision", "fp32", "--device", device, "--checkpoint", checkpoint]
    assert status_of(inference.main, *files, *kept, *options) == 0


def levels_off(folder: Path, recorded: dict[str, np.ndarray]) -> np.ndarray:
    """How far the frames of frames/ are from the recorded ones, of 255."""
    pictures = sorted((folder / "frames").glob("*.png"))
    assert len(pictures) == FRAMES
    frames = np.stack([read_image(pictures[number]) for number in recorded["frame_numbers"]])
    return np.abs(frames.astype(int) - recorded["frames"])


def close(actual: np.ndarray, expected: np.ndarray, atol: float) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
