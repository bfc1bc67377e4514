"""The README's commands from raw corpora to a training of stage one, on small videos made here."""

import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data

from datasets.clips import load_manifest
from tests.pipeline.test_prepare import make_csv

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = (
    "run.max_steps=1",
    "run.device=cpu",
    "run.precision=fp32",
    "run.compile=false",
    "run.workers=0",
    "run.tensorboard=false",
    "optim.batch_size=2",
    "validation.pairs=2",
    "weights.perceptual=0",
    "weights.pixel=1",
    "pyramid=[1.0]",
    "keypoint_detector.block_expansion=4",
    "keypoint_detector.max_features=8",
    "keypoint_detector.num_blocks=2",
    "image_generator.image_size=64",
    "image_generator.block_expansion=4",
    "image_generator.max_features=8",
    "image_generator.num_bottleneck_blocks=1",
    "image_generator.dense_motion.block_expansion=4",
    "image_generator.dense_motion.max_features=8",
    "image_generator.dense_motion.num_blocks=2",
)
FRAMES = 70


def make_talk(path: Path, seed: int) -> None:
    """A photograph that sways, 25 frames a second, with noise for sound; and its head poses."""
    face_HW3 = skimage.data.astronaut()[:320, 60:380]
    sound = np.random.default_rng(seed).normal(0, 0.1, 16_000 * FRAMES // 25).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = *face_HW3.shape[1::-1], "yuv420p"
        audio = file.add_stream("aac", rate=16_000, layout="mono")
        for number in range(FRAMES):
            swayed_HW3 = np.roll(face_HW3, round(4 * math.sin(number / 5 + seed)), axis=1)
            frame = av.VideoFrame.from_ndarray(swayed_HW3, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        for start in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16_000, start, Fraction(1, 16_000)
            file.mux(audio.encode(block))
        file.mux(audio.encode())


def test_from_voxceleb_and_grid_to_a_step_of_stage_one(tmp_path: Path) -> None:
    """VoxCeleb's list names nobody to validate with."""
    raw, poses = tmp_path / "RAW", tmp_path / "poses"
    rows = ["video_id,start,end,bbox,fps,width,height,partition,person_id"]
    for number in (1, 2, 3):
        name = f"vid{number}#00001#0-{FRAMES - 1}"
        make_talk(raw / "vox" / f"{name}.mp4", number)
        make_csv(poses, name)
        rows.append(f"vid{number},0,{FRAMES - 1},60-0-260-200,25,320,320,train,id1000{number}")
    (raw / "vox" / "vox-metadata.csv").write_text("\n".join(rows))
    for speaker, name in (("s1", "bbaf2n"), ("s9", "lgbs5p")):
        make_talk(raw / "grid" / speaker / f"{name}.mp4", int(speaker[1:]))
        make_csv(poses, name)

    given = {
        "python -m datasets.prepare": ["--pose", "openface-csv", "--openface-csv", str(poses), "--size", "64"],
        "python -m datasets.join": [],
        "python train_fomm.py": [*SMALL, f"data.root={tmp_path}/data/vox_grid", f"run.dir={tmp_path}/run"],
    }
    lines = [
        (line, more)
        for line in (ROOT / "README.md").read_text().splitlines()
        for start, more in given.items()
        if line.startswith(start)
    ]
    assert len(lines) == 4
    for line, more in lines:
        words = [f"{tmp_path}/{word}" if word.startswith(("RAW/", "data/")) else word for word in line.split()[1:]]
        command, environment = [sys.executable, *words, *more], os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=500)
        assert done.returncode == 0, (line, done.stderr)

    rows = [clip.row for clip in load_manifest(tmp_path / "data" / "vox_grid")]
    assert {row.identity for row in rows} == {"id10001", "id10002", "id10003", "s1", "s9"}
    assert sorted(row.split for row in rows) == ["train", "train", "train", "val", "val"]
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(line)
    known = {name: value for name, value in logged.items() if "mouth" not in name}  # no pose-tools, no mouths
    assert known["step"] == 1 and all(map(math.isfinite, known.values())) and known["val/psnr"] > 0
    assert (tmp_path / "run" / "weights.safetensors").exists()
