"""How near generated pictures are to the true ones, frame by frame.

Letters: T video frame, H W C picture (RGB, uint8), B frames measured at once.
"""

import numpy as np
import torch
from torch import Tensor, nn

from datasets.clips import mouth_boxes
from evaluation.scores.networks import Networks
from evaluation.videos.frames import BATCH, batches, to_unit
from modules import measures


@torch.inference_mode()
def picture_scores(
    image_THWC: np.ndarray, wanted_THWC: np.ndarray, mouth_T4: np.ndarray, networks: Networks
) -> dict[str, float]:
    """PSNR, SSIM, both inside the mouth's box, LPIPS: each a mean over frames; NaN where there is none.

    Args:
        mouth_T4: true mouths as `Clip.mouth` gives them; frames without one do not count for the box.
    """
    columns: dict[str, list[Tensor]] = {}
    box_T4 = torch.from_numpy(mouth_boxes(mouth_T4).astype(np.float32))
    for image, wanted, box in zip(batches(image_THWC), batches(wanted_THWC), box_T4.split(BATCH), strict=True):
        image, wanted, box = (part.to(networks.device) for part in (to_unit(image), to_unit(wanted), box))
        scores = {
            "psnr": measures.psnr(image, wanted),
            "ssim": measures.ssim(image, wanted),
            "mouth_psnr": measures.box_psnr(image, wanted, box),
            "mouth_ssim": measures.box_ssim(image, wanted, box),
        }
        if networks.lpips is not None:
            scores["lpips"] = networks.lpips(image, wanted, normalize=True).flatten()
        for name, values in scores.items():
            columns.setdefault(name, []).append(values.cpu())
    return {name: float(torch.cat(parts).nanmean()) for name, parts in columns.items()}


@torch.inference_mode()
def inception_features(frames_THWC: np.ndarray, inception: nn.Module, device: torch.device) -> np.ndarray:
    """Features of every frame for FID, float32 [T, 2048]."""
    parts = [inception(frames.to(device)).cpu() for frames in batches(frames_THWC)]
    return torch.cat(parts).numpy().astype(np.float32)


def frechet_inception_distance(true_NF: np.ndarray, generated_NF: np.ndarray) -> float:
    """FID (Heusel et al. 2017) of features that have been computed before, by torchmetrics."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Computed(nn.Identity):
        num_features = true_NF.shape[1]

    metric = FrechetInceptionDistance(feature=Computed()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(true_NF).double(), real=True)
    metric.update(torch.from_numpy(generated_NF).double(), real=False)
    return float(metric.compute())
