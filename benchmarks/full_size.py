"""How near full-size frames come to the truth, beside N_I's own frames enlarged, on clips of a prepared corpus.

    python benchmarks/full_size.py --data data/grid --split val --size 256

N_I draws each clip's frames from its first one and from what N_D finds in the true frames, so that only rendering is
judged. Sharpness is the standard deviation of the Laplacian by the truth's.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from animation.full_size import FullSize, Geometry  # noqa: E402
from animation.models import Models, load_models  # noqa: E402
from animation.weights import DEMO_WEIGHTS  # noqa: E402
from datasets.clips import Clip, load_manifest  # noqa: E402
from datasets.face.upright import Frame  # noqa: E402
from datasets.media.image import to_float  # noqa: E402
from engine.device import use  # noqa: E402

ROWS = ("first frame, still", "N_I's frame, enlarged", "full size")


def scores(frame_HW3: np.ndarray, true_HW3: np.ndarray) -> tuple[float, float, float]:
    """PSNR in dB, SSIM, sharpness by the truth's."""
    error = np.mean((frame_HW3.astype(np.float64) - true_HW3) ** 2)
    similarity = structural_similarity(frame_HW3, true_HW3, channel_axis=2)
    return 10 * np.log10(255**2 / max(error, 1e-9)), similarity, sharpness(frame_HW3) / sharpness(true_HW3)


def sharpness(image_HW3: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std())


@torch.inference_mode()
def clip_scores(models: Models, clip: Clip, size: int, every: int) -> np.ndarray:
    """[rows, 3] means over every `every`-th frame."""
    small = models.image_config.image_size
    numbers = range(0, clip.frames, every)
    true_NHW3, seen_NHW3 = clip.read_frames(numbers, size), clip.read_frames(numbers, small)
    images = to_float(seen_NHW3).to(models.device)
    source = models.keypoint_detector(images[:1]).keypoints
    encoding = models.image_generator.encode(images[:1])
    geometry = Geometry(
        Frame((-0.5, -0.5), (size, 0), (0, size)).matrix(small), small, models.image_config.align_corners
    )
    full_size = FullSize(true_NHW3[0], geometry, models.device)
    found = []
    for number in range(1, len(images)):
        driving = models.keypoint_detector(images[number : number + 1]).keypoints
        rendering = models.image_generator.render(encoding, driving, source)
        drawn_HW3 = (rendering.image_BCHW[0].movedim(0, -1) * 255).round().to(torch.uint8).cpu().numpy()
        enlarged_HW3 = cv2.resize(drawn_HW3, (size, size), interpolation=cv2.INTER_CUBIC)
        ours_HW3 = full_size.frames(full_size.layers(rendering, images[:1]))[0].cpu().numpy()
        found.append([scores(frame, true_NHW3[number]) for frame in (true_NHW3[0], enlarged_HW3, ours_HW3)])
    return np.mean(found, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared corpus")
    parser.add_argument("--split", help="train, val or test (default: all)")
    parser.add_argument("--identities", nargs="+", help="only these")
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[DEMO_WEIGHTS])
    parser.add_argument("--size", type=int, default=256, help="pixels at which frames are judged")
    parser.add_argument("--every", type=int, default=5, help="judge every so-many-th frame")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    use(device)
    needed = ("keypoint_detector", "image_generator")
    models = load_models(arguments.checkpoint, device, needed)
    clips = load_manifest(arguments.data, arguments.split)
    clips = [clip for clip in clips if not arguments.identities or clip.row.identity in arguments.identities]
    found = np.mean([clip_scores(models, clip, arguments.size, arguments.every) for clip in clips], axis=0)
    print(f"{len(clips)} clips of {arguments.data}, judged at {arguments.size}x{arguments.size}")
    print(f"| frames | PSNR dB | SSIM | sharpness by the truth's |\n|{'---|' * 4}")
    for name, (ratio_db, similarity, sharp) in zip(ROWS, found, strict=True):
        print(f"| {name} | {ratio_db:.2f} | {similarity:.3f} | {sharp:.2f} |")


if __name__ == "__main__":
    main()
