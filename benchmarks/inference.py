"""Speed and memory of inference, beside a mode that works as the reference program does; all in one run.

    python benchmarks/inference.py                      # CPU: fp32, bf16, and with --compile also compiled
    python benchmarks/inference.py --device cuda --frames 2048

Networks have the paper's sizes and random weights unless --checkpoint is given: time does not depend on the values, but
the PSNR between precisions does, so give a checkpoint for that column to mean something. The reference mode renders one
frame at a time with the plain networks and encodes the source anew for each; it keeps gradients off, which the released
program does not, so the ratio is to the reference's favour. Memory is that of whole `inference.py` processes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import soundfile
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "assets" / "speech.wav"
sys.path.insert(0, str(ROOT))

from animation.full_size import FullSize, Geometry  # noqa: E402
from animation.generate import WINDOWS_ON_GPU, Animator, drawing_generator, moving_generator  # noqa: E402
from animation.head_poses import GivenHeadPoses, PredictedHeadPoses  # noqa: E402
from animation.job import Job, Summary  # noqa: E402
from animation.models import Models, load_models  # noqa: E402
from animation.motion import generate_keypoints, piece_sizes  # noqa: E402
from animation.options import AnimationOptions  # noqa: E402
from animation.render import Renderer  # noqa: E402
from animation.stream import Stream  # noqa: E402
from animation.weights import DEMO_WEIGHTS, NETWORKS, component_config  # noqa: E402
from datasets import audio  # noqa: E402
from datasets.audio_stream import feature_pieces  # noqa: E402
from datasets.face.upright import Frame  # noqa: E402
from datasets.media.image import write_png  # noqa: E402
from datasets.media.sound import load_pcm  # noqa: E402
from datasets.media.video_writer import VideoWriter  # noqa: E402
from datasets.pose import RELEASED_RANGE, render_boxes  # noqa: E402
from engine.checkpoint import Weights, save_weights  # noqa: E402
from engine.command import peak_memory_mb  # noqa: E402
from engine.config import load  # noqa: E402
from engine.device import AUTOCAST, use  # noqa: E402
from modules.fuse import fuse_for_inference  # noqa: E402
from modules.keypoints import Keypoints  # noqa: E402
from modules.motion_field_generator import MotionFieldGenerator  # noqa: E402


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 3, warm_up: bool = True) -> float:
    """Best wall time of `repeats` calls, after one to warm up."""
    if warm_up:
        function()
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product: what the machine can do."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds(lambda: a @ a, device, 5) / 1e9


def paper_sized_models(device: torch.device) -> Models:
    """Random weights at the paper's sizes."""
    weights = Weights()
    for component, (network_class, config_class) in NETWORKS.items():
        network = network_class(component_config(weights, component, config_class))
        weights.states[component] = network.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        save_weights(path, weights)
        return load_models([path], device)


def some_motion(models: Models, frames: int, image: torch.Tensor) -> tuple[Keypoints, Keypoints]:
    """Source keypoints, and driving keypoints that wander about them."""
    with torch.inference_mode():
        source = models.keypoint_detector(image).keypoints
    torch.manual_seed(0)
    return source, source.repeated(frames).map(lambda part: part + 0.05 * torch.randn(part.shape, device=part.device))


def reference_frames(models: Models, image: torch.Tensor, source: Keypoints, driving: Keypoints) -> np.ndarray:
    """One frame at a time, everything anew for each."""
    frames = []
    with torch.inference_mode():
        for i in range(len(driving.position_BK2)):
            picture = models.image_generator(image, driving.cut(i, i + 1), source).image_BCHW
            frames.append((picture[0].permute(1, 2, 0) * 255).to(torch.uint8).cpu().numpy())
    return np.stack(frames)


def our_renderer(
    models: Models,
    image: torch.Tensor,
    source: Keypoints,
    batch: int,
    dtype: torch.dtype | None,
    compiled: bool,
    for_cpu: bool = True,
) -> Renderer:
    if for_cpu:
        generator = drawing_generator(models, dtype, compiled)
    else:
        generator = fuse_for_inference(models.image_generator).to(memory_format=torch.channels_last)
    picture = image.contiguous(memory_format=torch.channels_last)
    return Renderer(generator, picture, source, batch, True, dtype, compiled)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def bench_rendering(models: Models, arguments: argparse.Namespace) -> None:
    """Table of the renderer's modes, measured in turns, so that other programs slow all of them alike."""
    device = models.device
    size = models.image_config.image_size
    image = torch.rand(1, 3, size, size, device=device)
    source, driving = some_motion(models, arguments.frames, image)
    few, one = driving.cut(0, arguments.reference_frames), driving.cut(0, 1)
    expected = reference_frames(models, image, source, few)
    modes: dict[str, tuple[Callable[[], object], int, float, np.ndarray]] = {}  # a turn, its frames, GFLOP, pictures
    modes["reference mode, fp32"] = (
        lambda: reference_frames(models, image, source, few),
        len(expected),
        _gflop(lambda: models.image_generator(image, one, source)),
        expected,
    )
    on_cpu = device.type == "cpu"
    kinds = [
        (precision, compiled, for_cpu)
        for compiled in ((False, True) if arguments.compile else (False,))
        for precision in arguments.precisions
        for for_cpu in ((False, True) if on_cpu and not compiled else (True,))
    ]
    for precision, compiled, for_cpu in kinds:
        renderer = our_renderer(models, image, source, arguments.batch_size, AUTOCAST[precision], compiled, for_cpu)
        ways = {"": renderer.frames}
        if on_cpu and not compiled:
            ways = {"one at a time": renderer.drawn_in_turn, f"{torch.get_num_threads()} threads": renderer.frames}
        for way, draw in ways.items():
            words = [
                precision,
                "compiled" * compiled,
                "rewritten for CPUs" * (on_cpu and for_cpu and not compiled),
                way,
            ]
            modes[", ".join(filter(None, words))] = (
                lambda draw=draw: _drain(draw(iter([driving]))),
                arguments.frames,
                _gflop(lambda r=renderer: r.render_batch(*one)),
                np.concatenate(list(draw(iter([few])))),
            )
    took: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(arguments.turns + 1):  # the first warms up
        for name, (turn, frames, _, _) in modes.items():
            took[name].append(seconds(turn, device, repeats=1, warm_up=False) / frames)
    middle = {name: float(np.median(times[1:])) for name, times in took.items()}
    print(f"\nRendering, {size}x{size}, ms a frame (median of {arguments.turns} turns)")
    print(f"| mode | ms/frame | frames/s | ratio | GFLOP/frame | GFLOP/s | max diff (8 bit) | PSNR dB |\n|{'---|' * 8}")
    reference_s = next(iter(middle.values()))
    for name, (_, _, gflop, pictures) in modes.items():
        each = middle[name]
        difference = np.abs(pictures.astype(int) - expected.astype(int)).max()
        print(
            f"| {name} | {1e3 * each:.1f} | {1 / each:.1f} | {reference_s / each:.2f} | {gflop:.1f} |"
            f" {gflop / each:.0f} | {difference} | {psnr(pictures, expected):.1f} |"
        )


@torch.inference_mode()
def bench_full_size(models: Models, arguments: argparse.Namespace) -> None:
    """What full-size frames add to N_I's own, on one core of a CPU: a 1280x720 photograph, faces of three sizes."""
    device, size = models.device, models.image_config.image_size
    image = torch.rand(1, 3, size, size, device=device)
    source, driving = some_motion(models, arguments.batch_size, image)
    renderer = our_renderer(models, image, source, arguments.batch_size, AUTOCAST[arguments.precisions[-1]], False)
    draw_s = seconds(lambda: renderer.draw(*driving), device) / arguments.batch_size
    rendering = renderer.draw(*driving)
    photograph_HW3 = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"\nFull-size frames of a 1280x720 photograph (N_I itself: {1e3 * draw_s:.1f} ms a frame)")
    print(f"| square of | turned | ms/frame | share of N_I and this |\n|{'---|' * 4}")
    for side, degrees in ((300, 0), (500, 0), (500, 15), (720, 0)):
        face = turned_square(side, np.radians(degrees), photograph_HW3.shape)
        geometry = Geometry(face.matrix(size), size, models.image_config.align_corners)
        maker = FullSize(photograph_HW3, geometry, device)
        took = core_seconds(lambda m=maker: m.frames(m.layers(rendering, image)), device) / arguments.batch_size
        print(f"| {side} pixels | {degrees} degrees | {1e3 * took:.1f} | {took / (took + draw_s):.0%} |")
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def core_seconds(function: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Best time of `repeats` calls; on a CPU the time of its core, which other programs do not lengthen much."""
    if device.type == "cuda":
        return seconds(function, device, repeats)
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def turned_square(side: float, roll: float, shape: tuple[int, ...]) -> Frame:
    """A square in the middle of a picture."""
    right_2, down_2 = side * np.array([np.cos(roll), np.sin(roll)]), side * np.array([-np.sin(roll), np.cos(roll)])
    corner_2 = np.array(shape[1::-1]) / 2 - 0.5 - (right_2 + down_2) / 2
    return Frame(tuple(corner_2), tuple(right_2), tuple(down_2))


def bench_motion(models: Models, arguments: argparse.Namespace) -> None:
    """The stages before rendering, on ten seconds of sound."""
    device = models.device
    rng = np.random.default_rng(0)
    pcm = (8000 * rng.standard_normal(16_000 * 10) * np.sin(np.arange(160_000) / 4000) ** 2).astype(np.int16)
    size = models.image_config.image_size
    image = torch.rand(1, 3, size, size, device=device)
    features = audio.features(pcm, models.audio_features)
    frames = len(features)
    pose_TP = RELEASED_RANGE.denormalise(np.zeros((frames, 6), np.float32))
    print(f"\nBefore rendering, {frames} frames (10 s)")
    print(f"| stage | ms/frame | reference mode ms/frame |\n|{'---|' * 3}")
    pieces = partial(feature_pieces, pcm, piece_sizes(models.motion_field_config.window // 4), models.audio_features)
    rows = [("audio features", lambda: _drain(pieces()), lambda: audio.features(pcm, models.audio_features))]
    rows.append(("head poses (N_H)", lambda: PredictedHeadPoses(models, image).follow(features), None))
    rows.append(("pose boxes", lambda: render_boxes(pose_TP), lambda: render_boxes(np.repeat(pose_TP, 2, 0))))
    windows = WINDOWS_ON_GPU if device.type == "cuda" else 1
    plain = models.motion_field_generator
    with torch.inference_mode():
        source = models.keypoint_detector(image).keypoints

    def keypoints(generator: MotionFieldGenerator, windows: int) -> Iterator[Keypoints]:
        poses = GivenHeadPoses(pose_TP)
        return generate_keypoints(models, generator, image, [features], poses, 0, windows, source)

    # Only a CPU computes Hourglass-3D in what is asked for; all else is float32.
    for precision in arguments.precisions if device.type == "cpu" and plain.hourglass else ["fp32"]:
        generator = moving_generator(models, AUTOCAST[precision])
        rows.append(
            (
                f"motion field (N_M), {precision}",
                lambda g=generator: _drain(keypoints(g, windows)),
                lambda: _drain(keypoints(plain, 1)),
            )
        )
    rows.append(("source keypoints (N_D), once", lambda: models.keypoint_detector(image), None))
    for name, function, reference in rows:
        with torch.inference_mode():
            took = 1e3 * seconds(function, device, 2) / frames
            other = "" if reference is None else f"{1e3 * seconds(reference, device, 2) / frames:.2f}"
        print(f"| {name} | {took:.2f} | {other} |")


def reference_whole(models: Models, portrait: Path, sound: Path, output: Path) -> int:
    """From files to a file in the reference mode, step after step; returns the number of frames."""
    size = models.image_config.image_size
    animator = Animator(models, AnimationOptions(device="cpu", precision="fp32", size="native"))
    image, _ = animator.picture(portrait, Summary(output))
    features = audio.features(load_pcm(sound), models.audio_features)
    with torch.inference_mode():
        source = models.keypoint_detector(image).keypoints
        poses = GivenHeadPoses(PredictedHeadPoses(models, image).follow(features))
        chunks = generate_keypoints(models, models.motion_field_generator, image, [features], poses, 0, 1, source)
        frames_NHW3 = reference_frames(models, image, source, Keypoints.cat(chunks))
    assert frames_NHW3.shape[1:3] == (size, size)
    with VideoWriter(output, sound=sound) as writer:
        writer.write(frames_NHW3)
    return len(frames_NHW3)


def bench_whole(models: Models, arguments: argparse.Namespace) -> None:
    """From files to a file, the networks loaded: real-time factor, and when the first frame is there."""
    with tempfile.TemporaryDirectory() as folder:
        portrait, output, sound = (Path(folder) / name for name in ("portrait.png", "o.mp4", "sound.wav"))
        write_png(portrait, skimage.data.astronaut())
        pcm = np.resize(load_pcm(SPEECH), round(16_000 * arguments.whole_seconds))
        soundfile.write(sound, pcm, 16_000)
        ways: dict[str, Callable[[], tuple[int, float]]] = {}  # -> frames, time of the first
        if models.device.type == "cpu":
            ways["reference mode, fp32"] = lambda: (reference_whole(models, portrait, sound, output), float("nan"))
        for precision in arguments.precisions:
            given = [f"device={arguments.device}", f"precision={precision}"]
            animator = Animator(models, load(AnimationOptions, None, given, below=models.animation))
            ways[f"inference.py, {precision}"] = lambda a=animator: _animated(a, Job(portrait, output, sound))
        found: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in ways}
        for _ in range(arguments.turns + 1):
            for name, way in ways.items():
                start, core = time.perf_counter(), time.process_time()
                frames, first = way()
                now = time.perf_counter() - start
                found[name].append((first - start, now, time.process_time() - core, frames))
    print(
        f"\n{arguments.whole_seconds} s of speech from files to a file, networks loaded: first call, median of the next"
    )
    print(f"| mode | first frame s | all s | its core time s | ms/frame | ratio | x real time |\n|{'---|' * 7}")
    reference_s = np.median([took for _, took, _, _ in next(iter(found.values()))[1:]])
    for name, ((first, took, _, frames), *next_ones) in found.items():
        next_first, next_took, core = np.median([row[:3] for row in next_ones], axis=0)
        print(
            f"| {name} | {first:.2f}, {next_first:.2f} | {took:.2f}, {next_took:.2f} | {core:.2f} |"
            f" {1e3 * next_took / frames:.1f} | {reference_s / next_took:.2f} | {frames / 25 / next_took:.2f} |"
        )


def _animated(animator: Animator, job: Job) -> tuple[int, float]:
    """Frames, and when the first was drawn."""
    marks: list[float] = []
    summary = animator.animate(job, lambda done, total: marks.append(time.perf_counter()))
    return summary.frames, marks[0]


def bench_stream(models: Models, arguments: argparse.Namespace) -> None:
    """Delay and jitter of a stream: sound comes in blocks of 40 ms of virtual time, computing takes its real time.

    A frame is there when its sound has come, all frames before it are done, and it was computed. Delays are counted
    from the end of the frame's own sound.
    """
    animator = Animator(models, load(AnimationOptions, None, [f"device={arguments.device}"], below=models.animation))
    pcm = np.resize(load_pcm(SPEECH), 16_000 * arguments.stream_seconds)
    print(f"\nA stream of {arguments.stream_seconds} s of sound, in blocks of 40 ms")
    print(f"| look-ahead | stated delay s | median s | 99 % s | most s | frames/s | memory MB |\n|{'---|' * 7}")
    with tempfile.TemporaryDirectory() as folder:
        portrait = Path(folder) / "portrait.png"
        write_png(portrait, skimage.data.astronaut())
        for look_ahead in arguments.look_aheads:
            animator.options = replace(animator.options, look_ahead=look_ahead)
            stream, arrived, delays = Stream(animator, portrait), [0.0], []
            clock = spent = 0.0
            last = time.perf_counter()
            for frames_NHW3 in stream.frames(_blocks(pcm, arrived)):
                took = time.perf_counter() - last
                clock, spent = max(clock, arrived[0]) + took, spent + took
                delays += [clock - (len(delays) + n + 1) / 25 for n in range(len(frames_NHW3))]
                last = time.perf_counter()
            middle, late = np.percentile(delays, [50, 99])
            row = f"| {look_ahead or animator.look_ahead} | {stream.delay_s:.2f} | {middle:.2f} | {late:.2f} |"
            print(f"{row} {max(delays):.2f} | {len(delays) / spent:.1f} | {peak_memory_mb():.0f} |")


def _blocks(pcm: np.ndarray, arrived: list[float]) -> Iterator[np.ndarray]:
    """Sound in blocks of 40 ms; `arrived` tells when the last of them was there."""
    for start in range(0, len(pcm), 640):
        arrived[0] = (start + 640) / 16_000
        yield pcm[start : start + 640]


def bench_memory(arguments: argparse.Namespace) -> None:
    """Peak memory and speed of whole runs of inference.py on short and long sound."""
    checkpoints = arguments.checkpoint or [DEMO_WEIGHTS]
    print(f"\nWhole runs of inference.py with {', '.join(path.name for path in checkpoints)}")
    print("(peak memory must not grow with the sound, apart from its features)")
    print(f"| sound | wall s | frames/s | real-time factor | peak memory MB | of it features MB |\n|{'---|' * 6}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rng = np.random.default_rng(0)
        write_png(folder / "noise.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        for duration in arguments.memory_seconds:
            with soundfile.SoundFile(folder / "sound.wav", "w", 16_000, 1) as file:
                for _ in range(duration):
                    file.write((8000 * rng.standard_normal(16_000)).astype(np.int16))
            command = [sys.executable, str(ROOT / "inference.py"), "--image", str(folder / "noise.png"), "--audio"]
            command += [str(folder / "sound.wav"), "--checkpoint", *map(str, checkpoints)]
            command += ["--output", str(folder / "out.mp4"), "--device", arguments.device, "--crop", "none"]
            command += ["--size", "native"]
            start = time.perf_counter()
            peak = _peak_of(command)
            wall = time.perf_counter() - start
            rates = f"{duration * 25 / wall:.0f} | {duration / wall:.1f}"
            print(f"| {duration} s | {wall:.1f} | {rates} | {peak:.0f} | {duration * 25 * 4 * 41 * 4 / 2**20:.0f} |")


def _peak_of(command: list[str]) -> float:
    """Run and return the child's peak resident memory in MB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    result = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return int(result.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


def _drain(items: Iterator[object]) -> None:
    for _ in items:
        pass


PACKED_FLOP = {
    torch.ops.mkldnn._convolution_pointwise: lambda x, weight, *_, out_shape, **__: conv_flop_count(
        x, weight, out_shape
    ),
    torch.ops.mkldnn._convolution_pointwise.binary: lambda x, added, weight, *_, out_shape, **__: conv_flop_count(
        x, weight, out_shape
    ),
}  # from shapes; `added` goes onto the result


def _gflop(function: Callable[[], object]) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=PACKED_FLOP) as counter:
        function()
    return counter.get_total_flops() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", type=Path, nargs="+", help="otherwise random weights at the paper's sizes")
    parser.add_argument("--frames", type=int, default=4, help="frames a mode renders in a turn")
    parser.add_argument("--reference-frames", type=int, default=4, help="frames the reference mode renders")
    parser.add_argument("--turns", type=int, default=5, help="how often each mode renders, in turns with the others")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=list(AUTOCAST))
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--memory-seconds", type=int, nargs="*", default=[10, 120], help="lengths of sound, s")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=["render", "full-size", "motion", "whole", "stream", "memory"]
    )
    parser.add_argument("--whole-seconds", type=float, default=6.68, help="length of sound of a whole video")
    parser.add_argument("--stream-seconds", type=int, default=600, help="length of the streamed sound")
    parser.add_argument("--look-aheads", type=int, nargs="+", default=[0, 4], help="of the streams, frames; 0: usual")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    use(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}")
    rates = {precision: matrix_rate(device, AUTOCAST[precision] or torch.float32) for precision in arguments.precisions}
    print("matrix product: " + ", ".join(f"{rate:.0f} GFLOP/s {precision}" for precision, rate in rates.items()))
    models = load_models(arguments.checkpoint, device) if arguments.checkpoint else paper_sized_models(device)
    if "render" not in arguments.skip:
        bench_rendering(models, arguments)
    if "full-size" not in arguments.skip:
        bench_full_size(models, arguments)
    if "motion" not in arguments.skip:
        bench_motion(models, arguments)
    if "whole" not in arguments.skip:
        bench_whole(models, arguments)
    if "stream" not in arguments.skip:
        bench_stream(load_models(arguments.checkpoint or [DEMO_WEIGHTS], device), arguments)
    if "memory" not in arguments.skip:
        bench_memory(arguments)


if __name__ == "__main__":
    main()
