"""Damaged files of every kind that this project opens: each is read rightly, or refused in one sentence.

    python tests/fuzz.py --cases 2000                                 # of each reader
    python tests/fuzz.py --reader picture --first 1234 --cases 1      # one of them again, with its traceback

A case is a number: with the same seed it makes the same file. Each reader has a process of its own. It fails by an
error of another class than readers promise (`REFUSED`), by a crash, by taking more than LIMIT_S seconds or MEMORY more
than it had, by leaving a temporary file or an open one behind, or by a result that cannot be. A failure is printed and
its file kept; the exit code is then 1.
"""

import argparse
import faulthandler
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

# Beside this script: `tests` would be a package that torch-fidelity installs.
from damage import damaged
from untrained import untrained_weights

import evaluate
from animation.head_poses import read_head_pose
from animation.lists import is_whole, read_pairs
from animation.motion_file import Motion, load_motion
from animation.options import AnimationOptions, OptionError
from animation.weights import build_networks, read_weights
from datasets.clips import (
    Clip,
    existing_row,
    load_manifest,
    load_pose_range,
    save_pose_range,
    verify,
    write_clip,
    write_rows,
)
from datasets.errors import DataError
from datasets.face.openface import COLUMNS
from datasets.media.image import read_image
from datasets.media.sound import open_pcm
from datasets.media.video_reader import frames_of
from datasets.media.video_writer import VideoWriter
from datasets.pose import RELEASED_RANGE
from datasets.prepare.clip import Options, Outcome
from datasets.prepare.corpora.voxceleb import read_metadata, read_txt
from datasets.prepare.corpus import prepare
from datasets.provenance import read_marks
from datasets.targets import TargetStore
from engine import config
from engine.checkpoint import CheckpointError, save_weights
from engine.run_folder import FORMAT, RunFolder
from evaluation import EvaluationError
from evaluation.store import ClipResult, Store
from evaluation.study.answers import checked_answers, read_key, table_3
from train_headpose import Config as HeadposeConfig

REFUSED = (DataError, CheckpointError, config.ConfigError, EvaluationError, OptionError)
LIMIT_S = 10.0  # of the processor
NO_END_S = 120.0
MEMORY = 2**31  # bytes beside what the process has before its first case
FAILURES = 10  # of one reader, after which it is given up


@dataclass(frozen=True)
class Reader:
    """A kind of file: whole ones by their names, how they are damaged, and how the project reads them."""

    files: dict[str, bytes]
    kind: str
    read: Callable[[Path], Any]


# ---- whole files


def readers() -> dict[str, Reader]:
    """All kinds, by name."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        sounds, videos = _sounds(made), _videos(made)
        weights = untrained_weights(64)
        save_weights(made / "a.safetensors", weights)
        entries = {"generator": "image_generator", "kp_detector": "keypoint_detector"}
        states = {entry: dict(weights.states[name]) for entry, name in entries.items()} | {"epoch": np.float64(3)}
        torch.save(states, made / "a.pth.tar")
        torch.save(states, made / "b.pth.tar", _use_new_zipfile_serialization=False)
        released = {name: (made / name).read_bytes() for name in ("a.pth.tar", "b.pth.tar")}
        safetensors = {"a.safetensors": (made / "a.safetensors").read_bytes()}
    return {
        "picture": Reader(_pictures(), "bytes", _read_picture),
        "sound": Reader(sounds, "bytes", _read_sound),
        "video": Reader(videos, "bytes", _read_video),
        "marks": Reader(videos | {"a.png": _pictures()["a.png"]}, "bytes", _read_marks),
        "weights": Reader(safetensors, "safetensors", _read_weights),
        "released": Reader(released, "zip", lambda path: read_weights([path])),
        **_of_animation(),
        **_of_corpora(),
        **_of_evaluation(),
    }


def _picture(height: int = 24, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([8 * x, 9 * y, 5 * (x + y)], axis=-1).astype(np.uint8)


def _pictures() -> dict[str, bytes]:
    rgb = Image.fromarray(_picture())
    turned = Image.Exif()
    turned[0x0112] = 6
    grey16 = Image.fromarray((_picture()[..., 0].astype(np.uint16) << 8) + 7)
    pictures = {}
    for name, picture, options in (
        ("a.png", rgb, {}),
        ("b.png", rgb.quantize(16), {"transparency": 3}),
        ("c.png", grey16, {}),
        ("d.png", rgb.convert("RGBA"), {}),
        ("a.jpg", rgb, {"exif": turned}),
        ("b.jpg", rgb.convert("CMYK"), {"progressive": True}),
        ("a.webp", rgb, {}),
        ("a.gif", rgb, {}),
        ("a.tif", rgb, {"compression": "tiff_deflate"}),
        ("b.tif", rgb.convert("F"), {}),
        ("a.bmp", rgb, {}),
        ("a.jp2", rgb, {}),
    ):
        content = io.BytesIO()
        picture.save(
            content, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(name[2:], name[2:].upper()), **options
        )
        pictures[name] = content.getvalue()
    return pictures


def _sounds(folder: Path) -> dict[str, bytes]:
    wave = 0.3 * np.sin(np.arange(4000) / 7)
    soundfile.write(folder / "a.wav", wave, 16_000)
    soundfile.write(folder / "b.wav", np.stack([wave, -wave], 1), 44_100, subtype="FLOAT")
    for name in ("a.flac", "a.ogg", "a.mp3", "a.aiff"):
        soundfile.write(folder / name, wave, 16_000)
    for name, codec in (("a.m4a", "aac"), ("a.mka", "pcm_s16le")):
        with av.open(str(folder / name), "w") as file:
            track = file.add_stream(codec, rate=16_000, layout="mono")
            format = track.codec_context.format.name
            samples = (
                wave[None, :3072].astype(np.float32) if format == "fltp" else (9000 * wave[None, :3072]).astype("i2")
            )
            for start in range(0, 3072, 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, start : start + 1024]), format=format, layout="mono"
                )
                frame.sample_rate, frame.pts = 16_000, start
                file.mux(track.encode(frame))
            file.mux(track.encode(None))
    return {path.name: path.read_bytes() for path in folder.glob("?.*") if path.suffix != ".mp4"}


def _videos(folder: Path) -> dict[str, bytes]:
    frames = np.stack([np.roll(_picture(), n, axis=1) for n in range(6)])
    with VideoWriter(folder / "a.mp4", sound=folder / "a.wav") as writer:
        writer.write(frames)
    for name, codec in (("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.mpg", "mpeg2video")):
        with av.open(str(folder / name), "w") as file:
            track = file.add_stream(codec, rate=25)
            track.width, track.height, track.pix_fmt = 32, 24, "yuv420p"
            for frame in frames:
                file.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(track.encode(None))
    return {f"a.{kind}": (folder / f"a.{kind}").read_bytes() for kind in ("mp4", "mkv", "avi", "webm", "mpg")}


def _of_animation() -> dict[str, Reader]:
    motion, pose = io.BytesIO(), io.BytesIO()
    arrays = {"keypoints": np.zeros((5, 10, 2)), "jacobians": np.tile(np.eye(2), (5, 10, 1, 1)), "fps": np.array(25.0)}
    np.savez(motion, **arrays)
    np.savez_compressed(pose, head_pose=np.tile([0.1, 0.2, 0, 5, 10, 300], (5, 1)))
    header = ["frame", "timestamp", "confidence", "success", *COLUMNS]
    poses = [",".join(header)] + [f"{n},{n / 25:.3f},0.98,1,0.1,0.2,0.0,5,10,300" for n in range(1, 8)]
    pairs = "image,audio,output,still,expression_scale\na.png,b.wav,c.mp4,,2\n\nd.png,b.wav,e.mp4,true,\n"
    options = "still: true\nbatch_size: 3\nexpression_scale: 1.5\nkeypoint_mode: relative\n"
    training = "run: {dir: runs/a, max_steps: 3}\ndata: {root: data/x}\noptim:\n  batch_size: 2\n"
    return {
        "motion": Reader({"a.npz": motion.getvalue()}, "zip", lambda path: _check_motion(load_motion(path))),
        "head pose": Reader({"a.npz": pose.getvalue()}, "zip", lambda path: _check_pose(read_head_pose(path))),
        "openface": Reader(
            {"a.csv": "\n".join(poses).encode()}, "text", lambda path: _check_pose(read_head_pose(path))
        ),
        "pairs": Reader({"a.csv": pairs.encode()}, "text", lambda path: read_pairs(path, None, [])),
        "options": Reader({"a.yaml": options.encode()}, "text", lambda path: config.load(AnimationOptions, path)),
        "training": Reader({"a.yaml": training.encode()}, "text", lambda path: config.load(HeadposeConfig, path)),
    }


def _of_corpora() -> dict[str, Reader]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        frames, length = [_picture(32, 32)] * 3, 3
        row = write_clip(
            root,
            id="a",
            identity="i",
            split="train",
            frames=frames,
            pcm=np.arange(3 * 640, dtype=np.int16),
            features_TAF=np.zeros((length, 4, 41)),
            pose_TP=np.ones((length, 6)),
            mouth_T4=np.ones((length, 4)),
            source="a.mp4",
            pose_source="landmarks",
        )
        write_rows(root / "manifest.csv", [row, replace(row, id="b", split="test")])
        save_pose_range(root, RELEASED_RANGE, "test")
        write_targets(root, length)
        content = {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    journal = "\n" + Outcome("a", [row], [("bad", "too short")]).to_json()
    settings = json.dumps(asdict(Options()), indent=1)
    listed = "video_id,start,end,bbox,fps,width,height,partition,person_id\nv,0,99,1-2-30-40,25,640,360,train,id1\n"
    txt = "Identity  : \tid1\nReference : \tv\nOffset    : \t-2\n\nFRAME \tX \tY \tW \tH \n000001 \t1 \t2 \t30 \t40\n"

    def clip(read: Callable[[Clip], Any]) -> Callable[[Path], Any]:
        return lambda path: read(Clip(row, 0, path.parent))

    def file(name: str, kind: str, read: Callable[[Path], Any]) -> Reader:
        return Reader({name: content[name]}, kind, read)

    return {
        "manifest": file("manifest.csv", "text", lambda path: load_manifest(path.parent, "train")),
        "pose range": file("pose_range.json", "json", lambda path: load_pose_range(path.parent)),
        "frames": file("frames.zip", "zip", clip(lambda clip: clip.read_frames(range(3)))),
        "clip sound": file("audio.wav", "bytes", clip(lambda clip: clip.pcm())),
        "features": file("features.npy", "array", clip(lambda clip: clip.features())),
        "clip": Reader(
            {"clips/a/clip.json": content["clip.json"]}, "json", lambda path: existing_row(path.parents[2], "a")
        ),
        "verify": file("pose.npy", "array", clip(lambda clip: list(verify(clip)))),
        "journal": Reader({"journal/0000-of-0001.jsonl": journal.encode()}, "json", _read_prepared),
        "settings": Reader({"settings.json": settings.encode()}, "json", _read_prepared),
        "targets": file("t.npz", "zip", _read_targets),
        "voxceleb list": Reader({"a.csv": listed.encode()}, "text", read_metadata),
        "voxceleb txt": Reader({"txt/id1/v/1.txt": txt.encode()}, "text", read_txt),
    }


def write_targets(root: Path, length: int) -> None:
    keypoints = {"position": np.zeros((length, 10, 2), "f4"), "jacobian": np.zeros((length, 10, 2, 2), "f4")}
    np.savez_compressed(root / "t.npz", **keypoints, heatmap_0=np.zeros((length, 10, 4, 4), "u1"))


def _of_evaluation() -> dict[str, Reader]:
    result = ClipResult("a", "i", 3, {"psnr": 30.0}, {"fid": "no network"}, ["note"], {"weights": "x"})
    state = {
        "format": FORMAT,
        "stage": "fomm",
        "step": 5,
        "best": [1.0, 4],
        "inputs": {},
        "config": {"run": {"seed": 0}},
    }
    key = {
        **{"format": "naturalness-key-1", "study": "s", "salt": "00", "question": "?"},
        "videos": {"v1": {"method": "ours", "clip": "c"}, "v2": {"method": "truth", "clip": "c"}},
    }
    rating = {
        "score": 4,
        "shown": "2026-01-01T00:00:00Z",
        "answered": "2026-01-01T00:00:09Z",
        "plays": 1,
        "watched": 1.0,
    }
    answers = {
        **{"format": "naturalness-answers-1", "study": "s", "participant": "p", "seed": 1, "order": ["v2", "v1"]},
        **{"started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:01:00Z"},
        "answers": [{"video": video, **rating} for video in ("v2", "v1")],
    }

    def table(path: Path) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            key_path = Path(folder, "k.json")
            key_path.write_text(json.dumps(key))
            return table_3([checked_answers(path, read_key(key_path))], read_key(key_path))

    features = io.BytesIO()
    np.save(features, np.zeros((2, 2048), np.float32))
    motion = io.BytesIO()
    np.savez(motion, head_pose=np.zeros((3, 6), np.float32))
    store = lambda path: Store(path.parents[2])  # noqa: E731
    return {
        "result": Reader(
            {"clips/r/a.json": json.dumps(asdict(result)).encode()},
            "json",
            lambda path: store(path).read("r", "a", {"weights": "x"}),
        ),
        "inception": Reader(
            {"inception/r/a.npy": features.getvalue()}, "array", lambda path: store(path).inception("r", ["a"])
        ),
        "scored motion": Reader(
            {"motion/r/a.npz": motion.getvalue()}, "zip", lambda path: store(path).head_poses("r", ["a"])
        ),
        "checkpoint": Reader(
            {"run.json": json.dumps(state).encode()},
            "json",
            lambda path: RunFolder(path.parent, 0).read(path.parent, "fomm", {"run": {"seed": 0}}, {}),
        ),
        "evaluation": Reader(
            {"a.yaml": b"split: test\nrows: [full]\nnetworks: {lpips: a.pth}\nbootstrap: {samples: 10}\n"},
            "text",
            lambda path: config.load(evaluate.Config, path),
        ),
        "study key": Reader({"k.json": json.dumps(key).encode()}, "json", read_key),
        "answers": Reader({"a.json": json.dumps(answers).encode()}, "json", table),
    }


# ---- how they are read, and what may come of it


def _read_picture(path: Path) -> None:
    image_HW3 = read_image(path)
    assert image_HW3.dtype == np.uint8 and image_HW3.ndim == 3 and image_HW3.shape[2] == 3 and image_HW3.size


def _read_sound(path: Path) -> None:
    with open_pcm(path) as pcm:
        assert len(pcm) and len(pcm) < 16_000 * 3600, f"{len(pcm) / 16_000} s"


def _read_video(path: Path) -> None:
    shapes = {frame.shape for frame in frames_of(path)}
    assert shapes and all(len(shape) == 3 and shape[2] == 3 for shape in shapes)


def _read_marks(path: Path) -> None:
    read_marks(path)
    is_whole(path)


def _read_weights(path: Path) -> None:
    build_networks(read_weights([path]), str(path))


def _check_motion(motion: Motion) -> None:
    assert all(np.isfinite(value).all() for value in vars(motion).values())
    assert len(motion.keypoints) == len(motion.jacobians) > 0 and motion.head_pose.shape[1:] == (6,)
    assert motion.source_keypoints.shape == motion.keypoints.shape[1:]


def _check_pose(pose_TP: np.ndarray) -> None:
    assert pose_TP.ndim == 2 and pose_TP.shape[1] == 6 and len(pose_TP) < 3 * 10**6 and np.isfinite(pose_TP).all()


def _read_prepared(path: Path) -> None:
    root = path.parent if path.name == "settings.json" else path.parents[1]
    prepare([], root, root, Options(), 1, (0, 1), fixed_range=True)


def _read_targets(path: Path) -> None:
    store = TargetStore(path.parent.parent, path.parent.name)
    if store.has("t", heatmaps=True):
        targets = store.read("t", [0, 2], heatmaps=True)
        assert all(len(array) == 2 for array in targets)


# ---- running


def fuzz(name: str, reader: Reader, seed: int, first: int, cases: int, keep: Path) -> list[str]:
    """Read so many damaged files -> a line for each failure. Those files are kept in a folder."""
    failures: list[str] = []
    context = multiprocessing.get_context("fork")
    at, end = context.Value("q", first), first + cases
    while at.value < end and len(failures) < FAILURES:
        says, hears = context.Pipe(duplex=False)
        child = context.Process(target=_read_all, args=(reader, seed, at, end, hears))
        child.start()
        hears.close()
        seen, since = at.value, time.monotonic()
        while child.is_alive() or says.poll():
            if says.poll(0.2):
                try:
                    failures.append(says.recv())
                except EOFError:
                    break
            if at.value != seen:
                seen, since = at.value, time.monotonic()
            elif time.monotonic() - since > NO_END_S:  # deep in a library that hears no alarm
                child.kill()
        child.join()
        if child.exitcode != 0:
            reason = "no end" if time.monotonic() - since > NO_END_S else f"the process died ({child.exitcode})"
            failures.append(f"case {at.value}: {reason}")
            at.value += 1
    for line in failures:
        number = int(line.split()[1].rstrip(":"))
        place, content = case_of(reader, seed, number)
        target = keep / name.replace(" ", "-") / f"{number}-{Path(place).name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return failures


def case_of(reader: Reader, seed: int, number: int) -> tuple[str, bytes]:
    """Name and content of a damaged file; the first ones are whole."""
    random = np.random.default_rng([seed, number])
    names = sorted(reader.files)
    if number < len(names):
        return names[number], reader.files[names[number]]
    name, other = (names[random.integers(len(names))] for _ in range(2))
    return name, damaged(random, reader.files[name], reader.files[other], reader.kind)


class _TooLong(BaseException):
    pass


def _read_all(reader: Reader, seed: int, at: Any, end: int, hears: Any) -> None:
    def too_long(number: int, frame: Any) -> None:
        raise _TooLong

    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries and progress bars write
    signal.signal(signal.SIGPROF, too_long)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        temporary = Path(home, "tmp")
        temporary.mkdir()
        tempfile.tempdir = str(temporary)
        open_before = len(os.listdir("/proc/self/fd"))
        failures = 0
        while at.value < end and failures < FAILURES:
            whole = at.value < len(reader.files)  # the first cases are the files as they should be
            name, content = case_of(reader, seed, at.value)
            folder = Path(home, str(at.value))
            path = folder / name
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            if failure := _failure(reader, path, whole):
                hears.send(f"case {at.value}: {failure}")
                failures += 1
            left = [*folder.rglob(".*"), *temporary.iterdir()]
            if left := [each for each in left if each.name not in (".lock", ".running")]:
                hears.send(f"case {at.value}: left behind: {left[0].name}")
                failures += 1
                shutil.rmtree(temporary)
                temporary.mkdir()
            if len(os.listdir("/proc/self/fd")) > open_before + 5:
                hears.send(f"case {at.value}: files stay open")
                failures += 1
                open_before = len(os.listdir("/proc/self/fd"))
            shutil.rmtree(folder)
            at.value += 1


def _failure(reader: Reader, path: Path, whole: bool = False) -> str | None:
    """What is wrong with how a file is read. `whole`: it is not damaged, and must not be refused."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        reader.read(path)
    except REFUSED as error:
        sentence = str(error)
        if whole:
            return f"the whole {path.name} is refused: {sentence}"
        return None if sentence and "\n" not in sentence else f"not one sentence: {sentence[:300]!r}"
    except _TooLong:
        return f"more than {LIMIT_S:.0f} s"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "site-packages" not in frame.filename
        ]
        return f"{type(error).__name__}: {str(error)[:200]} ({' '.join(ours[2:])})".replace("\n", " ")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def main() -> int:
    kinds = readers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", nargs="+", choices=sorted(kinds), default=list(kinds), help="default: all")
    parser.add_argument("--cases", type=int, default=100, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, default=Path("results/fuzz"), help="where files that fail are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for name in arguments.reader:
        start = time.perf_counter()
        span = (arguments.seed, arguments.first, arguments.cases)
        failures = fuzz(name, kinds[name], *span, arguments.keep)
        rate = arguments.cases / (time.perf_counter() - start)
        print(f"{name:14} {arguments.cases} cases, {rate:.0f} a second, {len(failures)} failures", flush=True)
        print("".join(f"    {line}\n" for line in failures), end="", flush=True)
        failed += len(failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
