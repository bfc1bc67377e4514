"""A checkpoint in the layout of the released audio2head.pth.tar, filled with numbers that anybody can make again.

    python tests/golden/filled_checkpoint.py audio2head.pth.tar

The weights are not trained: frames made with them show no face. They are there to compare two programs with: both run
the same numbers, and must end in the same keypoints and frames. A manifest names the tensors: module -> rows of key,
shape and type. Each tensor is drawn from a generator of its own, seeded by the CRC-32 of "module/key", in float64, and
rounded to float32 at the end; so it depends on no other tensor and on no order. Scales keep the networks lively and
sane: keypoints apart from each other, Jacobians near the identity, head boxes inside the picture and in motion.
"""

import argparse
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MANIFEST = Path(__file__).with_name("released_manifest.json")
Manifest = dict[str, list[tuple[str, list[int], str]]]

# Factor on the standard deviation of weights, by "module/key"; the first pattern that fits counts. Others have 1.
SCALES = {
    r"audio2pose/em_audio\.resnet\.conv1\.weight": 0.05,  # features are not normalised: F0 is in Hz
    r"audio2pose/em_img\.resnet\.fc\.weight": 0.05,
    r"audio2pose/lstm\.weight_ih_l\d": 2.5,
    r"audio2pose/.*\.bn2\.weight": 0.3,
    r"audio2pose/output\.weight": 1.2,
    r"audio2kp/embedding\.0\.weight": 0.05,
    r"audio2kp/.*\.conv2\.weight": 0.5,
    r"audio2kp/kp\.weight": 0.16,
    r"audio2kp/jacobian\.weight": 0.02,
    r"kp_detector/kp\.weight": 1.2,
    r"kp_detector/jacobian\.weight": 0.1,
    r"generator/bottleneck\..*\.conv2\.weight": 0.3,
    r"generator/dense_motion_network\.(mask|occlusion)\.weight": 3.0,
}
# BatchNorms that see the pose picture, whose values are 0 and 255, as channel 5.
POSE_NORMS = {
    "audio2kp/predictor.encoder.down_blocks.0.res.norm1",
    "audio2kp/predictor.encoder.down_blocks.0.norm_res",
    "audio2kp/predictor.decoder.res_blocks.4.0.norm1",
    "audio2kp/predictor.decoder.res_blocks.4.1",
}
POSE_CHANNEL = 5


def filled(manifest: Manifest, scales: Mapping[str, float] | None = None) -> dict[str, dict[str, Tensor]]:
    """State dictionaries by module. `scales`: patterns as in SCALES, which count before those."""
    patterns = [*(scales or {}).items(), *SCALES.items()]
    modules = {}
    for module, rows in manifest.items():
        keys = {key for key, _, _ in rows}
        state = {}
        for key, shape, kind in rows:
            name = f"{module}/{key}"
            batch_norm = f"{key.rpartition('.')[0]}.running_mean" in keys
            scale = next((scale for pattern, scale in patterns if re.fullmatch(pattern, name)), 1.0)
            state[key] = torch.from_numpy(numbers(name, tuple(shape), batch_norm, scale)).to(getattr(torch, kind))
        modules[module] = state | spectral_vectors(state)
    return modules


def numbers(name: str, shape: tuple[int, ...], batch_norm: bool, scale: float) -> np.ndarray:
    """The values of one tensor, float64. `batch_norm`: it belongs to a BatchNorm."""
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    owner, _, part = name.rpartition(".")
    if part == "num_batches_tracked":
        return np.ones(shape)
    if re.search(r"[/.]down(_id|_pose)?$", owner):
        return blur_kernel(shape)
    if part == "running_mean":
        values = 0.1 * random.standard_normal(shape)
        if owner in POSE_NORMS:
            values[POSE_CHANNEL] += 10.0
        return values
    if part == "running_var":
        values = random.uniform(0.5, 1.5, shape)
        if owner in POSE_NORMS:
            values[POSE_CHANNEL] *= 900.0
        return values
    if re.fullmatch(r"(weight|bias)_[ih]h_l\d", part):  # LSTM: four gates
        bound = 1 / np.sqrt(shape[0] // 4)
        return scale * random.uniform(-bound, bound, shape)
    if part in ("weight_u", "weight_v"):  # spectral norm: where its power iteration starts
        values = random.standard_normal(shape)
        return values / np.linalg.norm(values)
    if part == "bias":
        values = 0.05 * random.standard_normal(shape)
        if re.search(r"[/.]jacobian$", owner):
            values += np.tile([1.0, 0.0, 0.0, 1.0], shape[0] // 4)
        if name == "audio2pose/output.bias":
            values += [0.0, 0.0, -0.1, 0.0, 0.0, 0.5]
        return values
    if len(shape) == 1:  # the gain of a norm
        return (1.0 + 0.1 * random.standard_normal(shape)) * (scale if batch_norm else 1.0)
    inputs = np.prod(shape[1:])
    if name == "audio2kp/embedding.0.weight":
        inputs = 4 * shape[3]  # of the 29 rows of this transposed kernel, 4 fall on sound
    return scale * np.sqrt(2 / inputs) * random.standard_normal(shape)


def blur_kernel(shape: tuple[int, ...]) -> np.ndarray:
    """[C, 1, k, k]: a Gaussian of deviation (k - 1) / 8 that sums to 1, the same for every channel."""
    taps = shape[-1]
    offset = np.arange(taps) - (taps - 1) / 2
    line = np.exp(-(offset**2) / (2 * ((taps - 1) / 8) ** 2))
    square = np.outer(line, line)
    return np.broadcast_to(square / square.sum(), shape).copy()


def spectral_vectors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """u and v of every spectral norm after 50 power iterations: eval mode then divides by the true singular value."""
    vectors = {}
    for key in state:
        if key.endswith(".weight_orig"):
            stem = key.removesuffix("orig")
            matrix, u = (state[name].numpy().astype(np.float64) for name in (key, f"{stem}u"))
            matrix = matrix.reshape(len(matrix), -1)
            for _ in range(50):
                v = matrix.T @ u
                v /= np.linalg.norm(v)
                u = matrix @ v
                u /= np.linalg.norm(u)
            vectors |= {f"{stem}{name}": torch.from_numpy(value).float() for name, value in (("u", u), ("v", v))}
    return vectors


def checksum(state: dict[str, Tensor]) -> str:
    """CRC-32 of all names and values, in order."""
    crc = 0
    for key, value in state.items():
        crc = zlib.crc32(value.numpy().tobytes(), zlib.crc32(key.encode(), crc))
    return f"{crc:08x}"


def read_manifest(path: Path = MANIFEST) -> Manifest:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="file to write, 756 MB")
    output = parser.parse_args().output
    modules = filled(read_manifest())
    torch.save(modules, output)
    print(f"{output}: " + ", ".join(f"{module} {checksum(state)}" for module, state in modules.items()))


if __name__ == "__main__":
    main()
