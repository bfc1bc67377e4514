"""The whole path (Fig. 2): picture and speech in, video file out, streaming, with bounded memory."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from animation.blinks import LIDS, Blinker, blinking
from animation.full_size import FullSize, Geometry
from animation.head_poses import (
    GivenHeadPoses,
    HeadPoses,
    KeptHeadPoses,
    PredictedHeadPoses,
    ReturningHeadPoses,
    ScaledHeadPoses,
    read_head_pose,
)
from animation.job import Job, Summary
from animation.models import Models
from animation.motion import expressive, generate_keypoints, piece_sizes, relative_to_source
from animation.motion_file import MotionRecorder, Plan, saved_plan
from animation.options import AnimationOptions, OptionError
from animation.progress import Clock
from animation.render import Renderer
from datasets import audio
from datasets.audio import LOG_ENERGY
from datasets.audio_stream import feature_pieces
from datasets.errors import DataError
from datasets.face.upright import Frame, choose_frame, cut
from datasets.files import make_folder, output_file
from datasets.media.gif_writer import LONGEST_S, GifWriter
from datasets.media.image import to_float
from datasets.media.sound import open_pcm
from datasets.media.source import read_source
from datasets.media.streams import FPS, SAMPLE_RATE
from datasets.media.video_writer import VideoWriter, frame_file, write_frames
from datasets.provenance import Signature
from engine.device import computes_bf16
from modules.face_points import with_closed_lips
from modules.fuse import LowPrecision, fuse_for_inference
from modules.image_generator import ImageGenerator
from modules.keypoints import Keypoints
from modules.motion_field_generator import MotionFieldGenerator

ENDINGS = (".mp4", ".gif")
REMARKED_S = 0.1  # lengths that differ by more are remarked on; ours
WINDOWS_ON_GPU = 8  # windows of N_M computed at once


class Animator:
    """Models prepared for one device and precision; makes any number of videos."""

    def __init__(
        self,
        models: Models,
        options: AnimationOptions,
        signature: Signature | None = None,
        protected: tuple[Path, ...] = (),
    ):
        """`protected`: files that no output may replace, beside the inputs of a job."""
        self.models = models
        self.protected = protected
        self.options = options
        self.signature = signature
        self.device = models.device
        self.dtype = options.chosen_dtype(models.device)
        self.batch_size = options.chosen_batch_size(models.device)
        self.threads = torch.get_num_threads()  # now: another video may hold some of them when the next one begins
        self.generator = drawing_generator(models, self.dtype, options.compile)
        self.motion_generator = None
        if models.motion_field_generator is not None:
            self.motion_generator = moving_generator(models, self.dtype)
        self.has_lids = models.detector_config.lid_keypoints == LIDS
        options.blink_rate(self.has_lids)  # refused at once where it cannot be

    def animate(
        self,
        job: Job,
        progress: Callable[[int, int], None] = lambda done, total: None,
        kind: type[VideoWriter] = VideoWriter,
        **target: Any,
    ) -> Summary:
        """Make one video; `progress(done, total)` is called after each batch of frames.

        Args:
            kind: what writes an mp4, VideoWriter or StreamWriter, with its further arguments `target`.

        Raises:
            DataError, OptionError: input or output that cannot be used; nothing is left half-written.
        """
        summary = Summary(job.output)
        clock = Clock(summary.seconds)
        judge_outputs(job, self.protected, into_file=target.get("target") is None)
        with clock("picture"):
            image, full_size = self.picture(job.image, summary)
            with torch.inference_mode():
                source = self.models.keypoint_detector(image).keypoints
        with contextlib.ExitStack() as stack:
            if job.motion is not None:
                plan = saved_plan(job.motion, source)
                summary.notices += remarks_on_sound(job, plan)
            else:
                plan = stack.enter_context(self._plan_from_sound(job, image, source, summary, clock))
            summary.fps = plan.fps
            recorder = MotionRecorder(source)
            chunks = self.moved(plan.chunks, source)
            if job.save_motion is not None:
                chunks = recorder.record(chunks)
            renderer = self.renderer(image, source, plan.frames, full_size)
            make_folder(job.output.parent)
            if job.save_motion is not None:
                make_folder(job.save_motion.parent)
            writer = stack.enter_context(self._writer(job, plan.fps, kind, **target))
            for frames in clock.each("rendering", renderer.frames(chunks)):
                with clock("writing"):
                    writer.write(frames)
                    if job.frames_dir is not None:
                        write_frames(job.frames_dir, summary.frames, frames)
                summary.frames += len(frames)
                progress(summary.frames, plan.frames)
            with clock("writing"):
                writer.finish()
            if job.save_motion is not None:
                recorder.motion(plan).save(job.save_motion)
        if isinstance(writer, GifWriter) and writer.is_cut:
            summary.notices.append(f"{job.output} shows the first {LONGEST_S:.0f} s; write an .mp4 for all of it")
        return summary

    def moved(self, chunks: Iterator[Keypoints], source: Keypoints) -> Iterator[Keypoints]:
        """Keypoints as they are drawn: on the picture's own, where the options say so."""
        if self.options.keypoint_mode != "relative":
            return chunks
        return relative_to_source(chunks, source, self.models.motion_field_config.closed_lips)

    def _writer(self, job: Job, fps: float, kind: type[VideoWriter], **target: Any) -> VideoWriter | GifWriter:
        common = {"fps": fps, "label": self.options.label, "signature": self.signature}
        if job.output.suffix.lower() == ".gif":
            return GifWriter(job.output, **common)
        return kind(job.output, sound=job.audio, crf=self.options.crf, **common, **target)

    def picture(self, path: Path, summary: Summary) -> tuple[Tensor, FullSize | None]:
        """What the networks see, [1, 3, S, S] in [0, 1] on the device, and what makes their frames full-size ones."""
        options, config = self.options, self.models.image_config
        image_HW3, notices = read_source(path, options.background)
        mode = "none" if options.crop == "none" else "auto"
        framing = choose_frame(image_HW3, mode, options.face or None, options.crop_box)
        summary.notices += [*notices, *(f"{path}: {notice}" for notice in framing.notices)]
        small_HW3 = cut(image_HW3, framing.frame, config.image_size)
        image_BCHW = to_float(small_HW3[None]).to(self.device)
        if options.size == "native":
            return image_BCHW, None
        if options.view == "square" and mode != "none":
            canvas_HW3, frame = square_canvas(image_HW3, framing.frame, options.size)
        else:
            canvas_HW3, frame = whole_canvas(image_HW3, framing.frame, options.size)
        geometry = Geometry(frame.matrix(config.image_size), config.image_size, config.align_corners)
        return image_BCHW, FullSize(canvas_HW3, geometry, self.device)

    @contextmanager
    def _plan_from_sound(
        self, job: Job, image: Tensor, source: Keypoints, summary: Summary, clock: Clock
    ) -> Iterator[Plan]:
        """The motion to a sound, whose file is open in the block: it is listened to while frames are made."""
        if job.audio is None:
            raise OptionError("--audio is needed: only --motion does without sound")
        with contextlib.ExitStack() as stack:
            with clock("sound"):
                pcm = stack.enter_context(open_pcm(job.audio))
                silent, frames = audio.is_silent(pcm), audio.frame_count(len(pcm))
                summary.notices += pcm.notes
            if silent:
                summary.notices.append(f"{job.audio} is silent: mouth and head stay at rest")
            head_pose_TP = None
            with clock("head poses"):
                if job.head_pose is not None:
                    head_pose_TP = read_head_pose(job.head_pose)
                    summary.notices += remarks_on_poses(job.head_pose, len(head_pose_TP), frames)
            pieces = clock.each("sound", feature_pieces(pcm, piece_sizes(self.look_ahead), self.models.audio_features))
            plan = self.motion_of(image, source, pieces, silent, head_pose_TP)
            yield replace(plan, frames=frames, chunks=clock.each("motion field", plan.chunks))

    def motion_of(
        self,
        image_BCHW: Tensor,
        source: Keypoints,
        sound: Iterable[np.ndarray],
        silent: bool = False,
        head_pose_TP: np.ndarray | None = None,
        keep_poses: bool = True,
    ) -> Plan:
        """Motion from the features of a sound, computed while its chunks are taken; how many frames is not known yet.

        Args:
            source: keypoints of the picture.
            sound: features of consecutive frames, each [t, A, F].
            silent: nothing is to be heard in the sound; mouth and head then stay at rest.
            head_pose_TP: head poses to use (rad, mm) instead of N_H's.
            keep_poses: False where the sound may last for ever.
        """
        poses: HeadPoses
        if head_pose_TP is not None:
            poses = GivenHeadPoses(head_pose_TP)
        else:
            poses = PredictedHeadPoses(self.models, image_BCHW)
            if self.options.head_return:
                poses = ReturningHeadPoses(poses, self.options.head_return)
        poses = ScaledHeadPoses(poses, 0.0 if self.options.still or silent else self.options.head_motion_scale)
        kept: list[np.ndarray] = []
        if keep_poses:
            poses = KeptHeadPoses(poses, kept)
        closures: deque[float] = deque()  # of the eyes, in the frames to come
        blink_rate = self.options.blink_rate(self.has_lids)
        if blink_rate:
            sound = _blinked_to(sound, Blinker(blink_rate, self.options.seed), closures)
        if silent:
            chunks = (source.repeated(len(poses.follow(piece_TAF))) for piece_TAF in sound)
        else:
            chunks = self._spoken(image_BCHW, source, sound, poses)
        if blink_rate:
            chunks = blinking(chunks, iter(closures.popleft, None))
        return Plan(FPS, 0, chunks, kept)

    def _spoken(
        self, image_BCHW: Tensor, source: Keypoints, sound: Iterable[np.ndarray], poses: HeadPoses
    ) -> Iterator[Keypoints]:
        windows = WINDOWS_ON_GPU if self.device.type == "cuda" else 1
        chunks = generate_keypoints(
            self.models, self.motion_generator, image_BCHW, sound, poses, self.look_ahead, windows, source
        )
        scale = self.options.expression_scale
        if scale == 1.0:
            return chunks
        rest = None
        if self.models.motion_field_config.closed_lips:
            rest = source._replace(position_BK2=with_closed_lips(source.position_BK2))
        return expressive(chunks, scale, rest)

    @property
    def look_ahead(self) -> int:
        """Frames that are heard before a frame is made.

        Raises:
            OptionError: more are asked for than N_M can use.
        """
        most = self.models.motion_field_config.window // 4
        if self.options.look_ahead > most:
            raise OptionError(f"--look-ahead {self.options.look_ahead} is more than this model uses; at most {most}")
        return self.options.look_ahead or most

    def renderer(
        self, image_BCHW: Tensor, source: Keypoints, frames: int, full_size: FullSize | None = None
    ) -> Renderer:
        """N_I for one source picture, made ready for so many frames."""
        return Renderer(
            self.generator,
            image_BCHW.contiguous(memory_format=torch.channels_last),
            source,
            batch_size=min(self.batch_size, frames),
            truncate=self.models.image_config.truncate_frames,
            dtype=self.dtype,
            compile_network=self.options.compile,
            full_size=full_size,
            threads=self.threads,
        )


def drawing_generator(models: Models, dtype: torch.dtype | None, compiled: bool) -> ImageGenerator:
    """N_I rewritten as suits its device, its type (None: float32) and whether it will be compiled."""
    cpu_dtype = _cpu_dtype(models.device, dtype)
    if compiled and dtype is not None:  # a graph of its own is made, with autocast
        cpu_dtype = None
    return fuse_for_inference(models.image_generator, cpu_dtype).to(memory_format=torch.channels_last)


def moving_generator(models: Models, dtype: torch.dtype | None) -> MotionFieldGenerator:
    """N_M rewritten as suits its device: float32, but for Hourglass-3D on a device that computes in bf16 and is to.

    Its heads stay in float32: what they read is exact to some thousandths, and they are asked for hundredths of pixels.
    """
    if models.device.type == "cpu":
        return fuse_for_inference(models.motion_field_generator, _cpu_dtype(models.device, dtype) or torch.float32)
    generator = fuse_for_inference(models.motion_field_generator)
    if dtype == torch.bfloat16 and generator.hourglass:  # float16 could overflow
        generator.predictor = LowPrecision(generator.predictor, dtype)
    return generator


def _cpu_dtype(device: torch.device, dtype: torch.dtype | None) -> torch.dtype | None:
    """For which type of a CPU `fuse_for_inference` is to rewrite networks that compute in `dtype` (None: float32)."""
    if device.type != "cpu":
        return None
    if dtype is None:
        return torch.float32
    # Where bf16 is only imitated, autocast does it. So it does on ARM, whose library has no convolution with something
    # after it.
    packs = computes_bf16(device) and not torch.ops.mkldnn._is_mkldnn_acl_supported()
    return torch.bfloat16 if packs else None


def _blinked_to(sound: Iterable[np.ndarray], blinker: Blinker, closures: deque[float]) -> Iterator[np.ndarray]:
    """The sound, unchanged; how far the eyes close to it is put into `closures`."""
    for piece_TAF in sound:
        closures.extend(blinker.closures(piece_TAF[..., LOG_ENERGY].mean(axis=1)))
        yield piece_TAF


def judge_outputs(job: Job, protected: tuple[Path, ...] = (), into_file: bool = True) -> None:
    """Judge where a job writes.

    Args:
        protected: files that it may not replace, beside its inputs.
        into_file: False where the video goes to standard output.

    Raises:
        DataError: a file or folder that cannot be written, or is needed for something else.
        OptionError: a file that would be something else than its name says.
    """
    taken = (*job.inputs, *protected)
    outputs = job.outputs if into_file else job.outputs[1:]
    if into_file:
        output_file(job.output, taken)
        check_ending(job.output, ENDINGS)
    if job.save_motion is not None:
        output_file(job.save_motion, (*taken, job.output))
        check_ending(job.save_motion, (".npz",))
    if job.frames_dir is not None:
        output_file(frame_file(job.frames_dir, 0), taken)
    for file, other in itertools.permutations(outputs, 2):
        if file is not job.frames_dir and file.resolve() in (other.resolve(), *other.resolve().parents):
            raise DataError(f"{other} cannot be written where {file} is written, too; name another")


def remarks_on_sound(job: Job, plan: Plan) -> list[str]:
    """Sentences about the sound that goes with a saved motion."""
    if job.audio is None:
        return []
    with open_pcm(job.audio) as pcm:
        sound_s, motion_s = len(pcm) / SAMPLE_RATE, plan.frames / plan.fps
        remarks = list(pcm.notes)
    if sound_s - motion_s > REMARKED_S:
        remarks.append(f"{job.motion} lasts {motion_s:.2f} s, {job.audio} {sound_s:.2f} s: the end of the sound is cut")
    elif motion_s - sound_s > REMARKED_S:
        remarks.append(f"{job.motion} lasts {motion_s:.2f} s, {job.audio} {sound_s:.2f} s: the rest is silent")
    return remarks


def remarks_on_poses(path: Path, poses: int, frames: int) -> list[str]:
    """A sentence if head poses from a file are clearly fewer or more than the frames of the sound."""
    if frames - poses > REMARKED_S * FPS:
        return [f"{path} has head poses for {poses / FPS:.2f} of {frames / FPS:.2f} s: the last one is held"]
    if poses - frames > REMARKED_S * FPS:
        return [
            f"{path} has head poses for {poses / FPS:.2f} s, the sound lasts {frames / FPS:.2f} s: the rest is unused"
        ]
    return []


def check_ending(output: Path, endings: tuple[str, ...]) -> None:
    """Raises OptionError for a file that would be something else than its name says."""
    if output.suffix.lower() not in endings:
        raise OptionError(f"{output}: only {' and '.join(endings)} can be written here; change the ending")


def whole_canvas(image_HW3: np.ndarray, frame: Frame, longest: int) -> tuple[np.ndarray, Frame]:
    """The whole picture, at most so long, its sides even, and the frame in it.

    Where it is small enough it keeps its pixels, but for a last odd row or column, which no video can hold.
    """
    height, width = image_HW3.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image_HW3[: height - height % 2, : width - width % 2]), frame
    size = (max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2)))
    canvas_HW3 = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
    return canvas_HW3, frame.stretched(size[0] / width, size[1] / height)


def square_canvas(image_HW3: np.ndarray, frame: Frame, longest: int) -> tuple[np.ndarray, Frame]:
    """Only what the frame shows, upright, at its own size but at most so large, and the frame in it: all of it."""
    side = max(2, 2 * round(min(frame.side, longest) / 2))
    return cut(image_HW3, frame, side), Frame((-0.5, -0.5), (side, 0), (0, side))
