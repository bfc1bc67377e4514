"""Talking heads whose truth is known, in the prepared format: for tests, smoke runs and sanity checks of training.

    python -m datasets.synthetic --output data/synthetic --clips 12 --seed 0

A clip is a speech-like sound (syllables: a glottal pulse through two formants, pauses, closures, hissing consonants)
and a head: a textured ellipsoid, drawn with the released camera under the pose that is stored, so that pose, box and
picture agree. What can be learned, and what cannot:

    loudness x first formant  -> mouth opening (exactly)
    second formant            -> mouth width (exactly)
    accents (pitch and level) -> nods; a new phrase -> a new direction of the gaze; pitch -> tilt of the head
    speaker                   -> size of these motions, face, voice, background
    slow noise                -> about a fifth of the head's motion, and the blinks: nothing to learn

`truth.npz` of a clip holds opening_T (mm), width_T (mm), loudness_T, accent_T, blink_T, and the drawn outline of the
mouth. The pose is written as it was drawn: rotation as an axis-angle vector, like `datasets.pose` draws boxes.

Letters: T video frame, S sound sample, C control value (400 a second), H W picture, P pose value.
"""

import argparse
import logging
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from datasets import command
from datasets.clips import (
    FEATURE_TAIL_SAMPLES,
    MANIFEST,
    SAMPLES_PER_FRAME,
    Clip,
    ClipRow,
    existing_row,
    load_audio_features,
    measure_pose_range,
    save_pose_range,
    write_clip,
    write_rows,
)
from datasets.errors import DataError
from datasets.files import make_folder
from datasets.media.streams import FPS, SAMPLE_RATE
from datasets.pose import BOX_SIZE, FOCAL_LENGTH, project

logger = logging.getLogger(__name__)

CONTROL_RATE = 400  # values a second that drive sound and face
VOWELS_HZ = np.array([(750, 1200), (520, 1850), (300, 2300), (480, 900), (320, 800), (660, 1650)], float)  # F1, F2
SKULL_MM = np.array([74.0, 108.0, 92.0])  # half axes of the head
SKULL_CENTRE_MM = np.array([0.0, -8.0, 62.0])  # in the head's frame, whose origin lies in the face
NECK_MM = np.array([0.0, 95.0, 75.0])  # the head turns about this point
MOUTH_Y_MM, EYE_Y_MM, EYE_X_MM = 47.0, -26.0, 31.0
LIGHT = np.array([-0.35, -0.5, -0.8])  # direction of the lamp in the camera's frame
TEXTURE_WIDTH, TEXTURE_HEIGHT = 512, 256  # longitude -pi..pi, y from the top to the bottom of the head


@dataclass(frozen=True)
class Speaker:
    """Everything that belongs to one identity: voice, face, habits, room. Drawn from a seed."""

    name: str
    pitch_hz: float
    tract: float  # scale of the formants
    motion: float  # scale of all head motions
    opening_mm: float  # mouth opening of a loud open vowel
    mouth_width_mm: float
    shape: np.ndarray  # scale of the three half axes
    skin: np.ndarray  # RGB, 0-255, as all colours here
    hair: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    cloth: np.ndarray
    hairline_mm: float
    brow_mm: float
    glasses: bool
    room_seed: int
    position_mm: np.ndarray  # usual place of the head in the camera's frame

    @staticmethod
    def draw(seed: int, number: int) -> "Speaker":
        random = np.random.default_rng([seed, 1, number])
        skin = np.array([235, 195, 165.0]) * random.uniform(0.35, 1.0) + random.uniform(-8, 8, 3)
        return Speaker(
            name=f"person{number:03d}",
            pitch_hz=float(random.choice([random.uniform(95, 140), random.uniform(170, 240)])),
            tract=random.uniform(0.92, 1.12),
            motion=random.uniform(0.5, 1.3),
            opening_mm=random.uniform(16, 26),
            mouth_width_mm=random.uniform(44, 56),
            shape=random.uniform(0.92, 1.08, 3),
            skin=np.clip(skin, 30, 245),
            hair=random.uniform(1, 15) * np.array([6.0, 4.5, 3.0]) + random.uniform(5, 60),
            lips=np.clip(skin * [0.85, 0.55, 0.55] + random.uniform(-10, 10, 3), 20, 230),
            iris=random.uniform(20, 120, 3),
            cloth=random.uniform(20, 230, 3),
            hairline_mm=random.uniform(-85, -62),
            brow_mm=random.uniform(2.0, 5.0),
            glasses=bool(random.random() < 0.3),
            room_seed=int(random.integers(2**31)),
            position_mm=random.uniform([-18, -8, 235], [18, 18, 325]),
        )


@dataclass(frozen=True)
class Speech:
    """What drives one clip, CONTROL_RATE values a second: each array [C]."""

    loudness: np.ndarray  # 0-1
    first_hz: np.ndarray
    second_hz: np.ndarray
    pitch_hz: np.ndarray
    hiss: np.ndarray  # 0-1, consonants
    accent: np.ndarray  # 0-1
    phrase: np.ndarray  # number of the current phrase


def draw_speech(random: np.random.Generator, speaker: Speaker, duration_s: float) -> Speech:
    """Phrases of syllables; each has a vowel, a level, perhaps an accent, and starts open, closed or with a hiss."""
    length = round(duration_s * CONTROL_RATE)
    loudness, hiss, accent, phrase = np.zeros((4, length))
    formants_hz = np.tile(VOWELS_HZ[0], (length, 1))
    melody = np.zeros(length)
    time_s, number = random.uniform(0.1, 0.4), 0
    while time_s < duration_s - 0.25:
        syllables = int(random.integers(3, 8))
        first = round(time_s * CONTROL_RATE)
        phrase[first:] = number
        for syllable in range(syllables):
            onset = random.choice(["open", "closed", "hiss"], p=[0.3, 0.4, 0.3])
            consonant_s = {"open": 0.0, "closed": 0.06, "hiss": 0.08}[onset]
            vowel_s = random.uniform(0.11, 0.24)
            start = round(time_s * CONTROL_RATE)
            middle, end = (
                start + round(consonant_s * CONTROL_RATE),
                round((time_s + consonant_s + vowel_s) * CONTROL_RATE),
            )
            if end >= length:
                break
            accented = random.random() < 0.3
            if onset == "hiss":
                hiss[start:middle] = random.uniform(0.3, 0.7)
            arch = np.sin(np.linspace(0, np.pi, end - middle)) ** 0.5
            loudness[middle:end] = arch * (random.uniform(0.85, 1.0) if accented else random.uniform(0.3, 0.75))
            formants_hz[start:] = VOWELS_HZ[random.integers(len(VOWELS_HZ))] * random.uniform(0.93, 1.07, 2)
            melody[start:end] = 0.12 - 0.25 * syllable / syllables + (0.28 if accented else 0.0)
            accent[middle:end] = accented
            time_s += consonant_s + vowel_s
        time_s += random.uniform(0.15, 0.5)
        number += 1
    smooth = lambda values, seconds: gaussian_filter1d(values, seconds * CONTROL_RATE, axis=0)  # noqa: E731
    formants_hz = smooth(formants_hz, 0.02) * speaker.tract
    return Speech(
        loudness=smooth(loudness, 0.008),
        first_hz=formants_hz[:, 0],
        second_hz=formants_hz[:, 1],
        pitch_hz=speaker.pitch_hz * np.exp(smooth(melody, 0.03)),
        hiss=smooth(hiss, 0.006),
        accent=smooth(accent, 0.06),
        phrase=phrase,
    )


def sound(random: np.random.Generator, speech: Speech, length: int) -> np.ndarray:
    """Additive voice: harmonics of the pitch, weighted by two moving formants; plus hiss and room noise. int16 [S]."""
    at = np.arange(length) * CONTROL_RATE / SAMPLE_RATE
    control = np.arange(len(speech.loudness))
    pitch_hz, level, hiss = (np.interp(at, control, x) for x in (speech.pitch_hz, speech.loudness, speech.hiss))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    wave_S = np.zeros(length)
    for harmonic in range(1, int(4000 / speech.pitch_hz.mean()) + 1):
        frequency = harmonic * speech.pitch_hz
        gain = 0.02 + sum(
            1 / (1 + ((frequency - centre) / width) ** 2)
            for centre, width in ((speech.first_hz, 90.0), (speech.second_hz, 140.0), (2700.0, 250.0))
        )
        wave_S += np.interp(at, control, gain / harmonic**0.5) * np.sin(harmonic * phase)
    white = random.standard_normal(length)
    hissing = lfilter([1, -0.95], [1, 0.3], white)  # mostly above 3 kHz
    wave_S = level * wave_S + 0.25 * hiss * hissing + random.uniform(0.0005, 0.01) * white
    return (wave_S / np.abs(wave_S).max() * random.uniform(0.3, 0.95) * 32767).astype(np.int16)


def draw_poses(random: np.random.Generator, speaker: Speaker, speech: Speech, frames: int) -> np.ndarray:
    """Head poses [T, 6] float64 that follow the speech (see the module's table)."""
    length = len(speech.loudness)
    smooth = lambda values, seconds: gaussian_filter1d(values, seconds * CONTROL_RATE, axis=0)  # noqa: E731
    directions = random.normal(0, 1, (int(speech.phrase.max()) + 2, 2)) * [0.16, 0.06]
    gaze = smooth(directions[speech.phrase.astype(int)], 0.15)
    noise = smooth(random.standard_normal((length, 6)), 0.35)
    noise *= np.array([0.03, 0.04, 0.025, 2.0, 1.5, 4.0]) / noise.std(axis=0)
    rotation = np.stack(
        [
            0.13 * smooth(speech.accent, 0.06) + gaze[:, 1],
            gaze[:, 0],
            0.35 * smooth(np.log(speech.pitch_hz / speaker.pitch_hz), 0.08) + 0.2 * gaze[:, 0],
        ],
        axis=1,
    )
    rotation = speaker.motion * (rotation + noise[:, :3]) + random.normal(0, [0.06, 0.08, 0.04])
    frame = np.arange(frames) * CONTROL_RATE / FPS
    pose_TP = np.empty((frames, 6))
    for axis in range(3):
        pose_TP[:, axis] = np.interp(frame, np.arange(length), rotation[:, axis])
        sway = np.interp(frame, np.arange(length), noise[:, 3 + axis]) * speaker.motion
        pose_TP[:, 3 + axis] = speaker.position_mm[axis] + sway + random.normal(0, 4)
    for pose in pose_TP:  # turning about the neck moves the face
        pose[3:] += NECK_MM - cv2.Rodrigues(pose[:3])[0] @ NECK_MM
    return pose_TP


def _texture_point(point_mm: np.ndarray, speaker: Speaker) -> np.ndarray:
    """Face points (x, y) in mm, seen from the front -> texture pixels, float [N, 2]."""
    half = SKULL_MM * speaker.shape
    x, y = point_mm[:, 0], point_mm[:, 1] - SKULL_CENTRE_MM[1]
    radius = np.sqrt(np.maximum(1 - (y / half[1]) ** 2, 1e-3))
    longitude = np.arcsin(np.clip(x / (half[0] * radius), -0.98, 0.98))
    return np.stack([(longitude / (2 * np.pi) + 0.5) * TEXTURE_WIDTH, (y / half[1] / 2 + 0.5) * TEXTURE_HEIGHT], axis=1)


def _surface(point_mm: np.ndarray, speaker: Speaker, out_mm: float = 0.0) -> np.ndarray:
    """Face points (x, y) in mm -> points of the head's surface [N, 3], `out_mm` in front of it."""
    half = SKULL_MM * speaker.shape
    offset = (point_mm - SKULL_CENTRE_MM[:2]) / half[:2]
    depth = np.sqrt(np.maximum(1 - (offset**2).sum(axis=1), 0.0))
    return np.column_stack([point_mm, SKULL_CENTRE_MM[2] - half[2] * depth - out_mm])


def _oval(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle)], axis=1)


def _fill(canvas: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
    """Anti-aliased polygon at 1/16 pixel."""
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], [float(c) for c in colour], cv2.LINE_AA, 4)


def _paint_base(random: np.random.Generator, speaker: Speaker) -> np.ndarray:
    """What of the face never moves within a clip: skin, hair, brows. Texture picture, uint8."""
    canvas = np.empty((TEXTURE_HEIGHT, TEXTURE_WIDTH, 3), np.uint8)
    canvas[:] = speaker.skin
    grain = cv2.GaussianBlur(random.standard_normal(canvas.shape[:2]).astype(np.float32), (0, 0), 2.0)
    hair = np.zeros(canvas.shape[:2], np.float32)
    longitude = (np.arange(TEXTURE_WIDTH) + 0.5) / TEXTURE_WIDTH * 2 * np.pi - np.pi
    half = SKULL_MM[1] * speaker.shape[1]
    y_mm = ((np.arange(TEXTURE_HEIGHT) + 0.5) / TEXTURE_HEIGHT * 2 - 1) * half + SKULL_CENTRE_MM[1]
    edge_mm = speaker.hairline_mm + 120 / (1 + np.exp(-(np.abs(longitude) - 1.5) * 9))  # lower at the sides and back
    hair = np.clip((edge_mm[None] - y_mm[:, None]) / 6 + 0.5, 0, 1)[..., None]
    strands = cv2.GaussianBlur(random.standard_normal(canvas.shape[:2]).astype(np.float32), (0, 0), 1.2, sigmaY=8.0)
    skin = speaker.skin + 12 * grain[..., None]
    canvas[:] = np.clip(skin * (1 - hair) + (speaker.hair + 90 * strands[..., None]) * hair, 0, 255)
    for side in (-1, 1):
        brow = np.array(
            [(14, -41), (30, -46), (46, -41), (46, -41 + speaker.brow_mm), (30, -43 + speaker.brow_mm), (14, -38)]
        )
        _fill(canvas, _texture_point(brow * [side, 1], speaker), speaker.hair * 0.8)
        blush = _texture_point(_oval(side * 38, 18, 16, 11), speaker)
        _fill(canvas, blush, speaker.skin * [1.0, 0.93, 0.92])
    return canvas


def _paint_moving(canvas: np.ndarray, speaker: Speaker, opening_mm: float, width_mm: float, blink: float) -> None:
    """Eyes and mouth of one frame, on the texture."""
    for side in (-1, 1):
        x = side * EYE_X_MM
        _fill(canvas, _texture_point(_oval(x, EYE_Y_MM, 14, 8), speaker), speaker.skin * 0.8)
        if blink < 0.9:
            height = 6.5 * (1 - blink)
            _fill(canvas, _texture_point(_oval(x, EYE_Y_MM, 12, height), speaker), np.array([240, 240, 236.0]))
            _fill(canvas, _texture_point(_oval(x, EYE_Y_MM, 5.5, min(5.5, height)), speaker), speaker.iris)
            _fill(canvas, _texture_point(_oval(x, EYE_Y_MM, 2.5, min(2.5, height)), speaker), np.array([10, 10, 10.0]))
    outer, inner = mouth_outlines(opening_mm, width_mm)
    _fill(canvas, _texture_point(outer, speaker), speaker.lips)
    if opening_mm > 0.5:
        _fill(canvas, _texture_point(inner, speaker), np.array([45, 15, 18.0]))
        if opening_mm > 5:  # upper teeth
            teeth = inner * [0.8, 1.0]
            teeth[:, 1] = np.minimum(teeth[:, 1], MOUTH_Y_MM - 1)
            _fill(canvas, _texture_point(teeth, speaker), np.array([225, 220, 205.0]))


def mouth_outlines(opening_mm: float, width_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Outer and inner outline of the lips, face points (x, y) in mm; the lower lip moves more than the upper."""
    outer = _oval(0, MOUTH_Y_MM + 0.25 * opening_mm, width_mm / 2, 7 + opening_mm / 2)
    inner = _oval(0, MOUTH_Y_MM + 0.25 * opening_mm, width_mm / 2 - 5, opening_mm / 2)
    return outer, inner


def _room(speaker: Speaker, size: int) -> np.ndarray:
    """The background: a colour gradient, some shapes, shoulders. float32 [H, W, 3]."""
    random = np.random.default_rng(speaker.room_seed)
    corners = random.uniform(20, 235, (2, 2, 3)).astype(np.float32)
    room = cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR).clip(0, 255).astype(np.uint8)
    for _ in range(int(random.integers(3, 9))):
        x, y, w, h = random.uniform([0, 0, 0.08, 0.08], [1, 0.9, 0.35, 0.5]) * size
        if random.random() < 0.5:
            _fill(room, np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]), random.uniform(10, 240, 3))
        else:
            _fill(room, _oval(x, y, w / 2, h / 2), random.uniform(10, 240, 3))
    return room


def _torso(canvas: np.ndarray, speaker: Speaker, pose: np.ndarray) -> None:
    """Neck and shoulders: they follow the head's place by a third, and do not turn."""
    scale = canvas.shape[0] / BOX_SIZE
    centre = speaker.position_mm + (pose[3:] - speaker.position_mm) / 3
    still = np.concatenate([np.zeros(3), centre])
    neck = np.array([(-48, 60, 80), (48, 60, 80), (56, 175, 80), (-56, 175, 80)], float)
    shoulders = np.array(
        [(-60, 130, 80), (0, 160, 60), (60, 130, 80), (190, 185, 80), (230, 400, 80), (-230, 400, 80), (-190, 185, 80)],
        float,
    )
    _fill(canvas, project(neck, still) * scale, speaker.skin * 0.75)
    _fill(canvas, project(shoulders, still) * scale, speaker.cloth)


def draw_frame(
    room: np.ndarray,
    base: np.ndarray,
    speaker: Speaker,
    pose: np.ndarray,
    opening_mm: float,
    width_mm: float,
    blink: float,
) -> np.ndarray:
    """One picture uint8 RGB [H, W, 3]: rays of the released camera on the textured head."""
    canvas = room.copy()
    _torso(canvas, speaker, pose)
    texture = base.copy()
    _paint_moving(texture, speaker, opening_mm, width_mm, blink)
    size = len(canvas)
    rotation, place = cv2.Rodrigues(pose[:3])[0], pose[3:]
    half = SKULL_MM * speaker.shape
    half_jaw = half + np.array([0, 0.35 * opening_mm, 0])  # an open mouth lowers the chin

    # Only the pixels of the box around the head. Pixel centres are at whole numbers.
    corners = SKULL_CENTRE_MM + half_jaw * np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, 8).T
    seen = project(corners, pose) * (size / BOX_SIZE)
    x0, y0 = np.clip(np.floor(seen.min(axis=0)).astype(int), 0, size - 1)
    x1, y1 = np.clip(np.ceil(seen.max(axis=0)).astype(int) + 1, 1, size)
    column, line = np.meshgrid(np.arange(x0, x1) * (BOX_SIZE / size), np.arange(y0, y1) * (BOX_SIZE / size))
    centre = BOX_SIZE / 2
    ray = np.stack([(column - centre) / FOCAL_LENGTH, (line - centre) / FOCAL_LENGTH, np.ones_like(line)], axis=-1)

    # Rays in the head's frame; the upper and the lower half of the head are two ellipsoids with a common equator.
    direction = (ray @ rotation).astype(np.float32)
    origin = -(rotation.T @ place) - SKULL_CENTRE_MM
    upper, inside_upper = _hit(direction, origin, half)
    lower, inside_lower = _hit(direction, origin, half_jaw)
    is_lower = lower[..., 1] > 0
    hit = np.where(is_lower[..., None], lower, upper)
    inside = np.where(is_lower, inside_lower, inside_upper)
    longitude = np.arctan2(hit[..., 0], -hit[..., 2])
    u = (longitude / (2 * np.pi) + 0.5) * TEXTURE_WIDTH - 0.5
    v = (hit[..., 1] / 2 + 0.5) * TEXTURE_HEIGHT - 0.5
    skin = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    towards_light = (rotation.T @ LIGHT * SKULL_MM[0] / half).astype(np.float32)
    shade = np.clip(0.62 + 0.42 * (hit @ towards_light), 0.3, 1.08)
    slope = np.hypot(*np.gradient(inside)) + 1e-12  # `inside` grows from 0 at the outline: blend over about one pixel
    cover = np.clip(inside / slope + 0.5, 0, 1)[..., None]
    picture = canvas
    head = picture[y0:y1, x0:x1]
    head[:] = head * (1 - cover) + np.minimum(skin * shade[..., None], 255) * cover
    _draw_nose(picture, speaker, pose)
    if speaker.glasses:
        _draw_glasses(picture, speaker, pose)
    return picture


def _hit(direction_HW3: np.ndarray, origin_3: np.ndarray, half_axes_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays on an ellipsoid about 0 -> first hit on the unit sphere [H, W, 3], and a value > 0 where there is a hit."""
    d, o = direction_HW3 / half_axes_3.astype(np.float32), (origin_3 / half_axes_3).astype(np.float32)
    a, b, c = np.einsum("hwi,hwi->hw", d, d), d @ o, o @ o - 1
    inside = b * b - a * c
    distance = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return o + distance[..., None] * d, inside


def _draw_nose(picture: np.ndarray, speaker: Speaker, pose: np.ndarray) -> None:
    """A pyramid that stands out of the face: its tip shows which way the head is turned."""
    scale = picture.shape[0] / BOX_SIZE
    foot = _surface(np.array([(0, -22), (-13, 20), (13, 20)], float), speaker)
    tip = _surface(np.array([(0, 16)], float), speaker, out_mm=22)
    top, left, right, tip = project(np.concatenate([foot, tip]), pose) * scale
    _fill(picture, np.stack([top, left, tip]), speaker.skin * 0.97)
    _fill(picture, np.stack([top, right, tip]), speaker.skin * 0.80)
    _fill(picture, np.stack([left, right, tip]), speaker.skin * 0.62)


def _draw_glasses(picture: np.ndarray, speaker: Speaker, pose: np.ndarray) -> None:
    scale = picture.shape[0] / BOX_SIZE
    for side in (-1, 1):
        rim = _surface(_oval(side * EYE_X_MM, EYE_Y_MM + 2, 20, 15), speaker, out_mm=9)
        line = np.round(project(rim, pose) * scale * 16).astype(np.int32)
        cv2.polylines(picture, [line], True, (25, 25, 30), max(1, round(2 * scale)), cv2.LINE_AA, 4)


def _origin(seed: int, number: int, speaker: Speaker, split: str) -> dict[str, Any]:
    """What a clip's row says of where it comes from."""
    return {
        "id": f"{speaker.name}_{number:05d}",
        "identity": speaker.name,
        "split": split,
        "source": f"synthetic seed {seed} clip {number}",
    }


def draw_clip(
    root: Path, seed: int, number: int, speaker: Speaker, split: str, duration_s: float, size: int
) -> ClipRow:
    """Draw one clip and write it into the corpus. Pure function of the arguments but for the files."""
    from datasets.audio import features

    cv2.setNumThreads(1)
    random = np.random.default_rng([seed, 2, number])
    frames = round(duration_s * FPS)
    samples = frames * SAMPLES_PER_FRAME + FEATURE_TAIL_SAMPLES
    speech = draw_speech(random, speaker, samples / SAMPLE_RATE)
    pcm = sound(random, speech, samples)
    pose_TP = draw_poses(random, speaker, speech, frames)
    at = (np.arange(frames) * CONTROL_RATE / FPS).astype(int)
    openness = np.clip((speech.first_hz / speaker.tract - 200) / 550, 0.1, 1.0)
    opening_T = (speaker.opening_mm * speech.loudness * openness)[at]
    spread = np.clip((speech.second_hz / speaker.tract - 1500) / 800, -1, 1)
    width_T = (speaker.mouth_width_mm + 9 * spread * np.minimum(3 * speech.loudness, 1))[at]
    blink_T = _blinks(random, frames)
    truth_T8 = np.empty((frames, 24, 2), np.float32)
    mouth_T4 = np.empty((frames, 4), np.float32)
    for t in range(frames):
        outer, inner = mouth_outlines(opening_T[t], width_T[t])
        truth_T8[t] = project(_surface(outer, speaker), pose_TP[t])
        low, high = truth_T8[t].min(axis=0), truth_T8[t].max(axis=0)
        lips = project(_surface(inner, speaker), pose_TP[t])
        mouth_T4[t] = [*(low + high) / 2, high[0] - low[0], np.ptp(lips[:, 1]) if opening_T[t] > 0 else 0.0]
    room, base = _room(speaker, size), _paint_base(random, speaker)
    grain = random.uniform(0.5, 3.0) * random.standard_normal(
        (4, size, size, 1), np.float32
    )  # sensor noise, used in turn
    grain = np.repeat(np.round(grain), 3, axis=-1).astype(np.int16)
    pictures = (
        cv2.add(
            draw_frame(room, base, speaker, pose_TP[t], opening_T[t], width_T[t], blink_T[t]),
            grain[t % 4],
            dtype=cv2.CV_8U,
        )
        for t in range(frames)
    )
    return write_clip(
        root,
        **_origin(seed, number, speaker, split),
        frames=pictures,
        pcm=pcm,
        features_TAF=features(pcm, load_audio_features(root))[:frames],
        pose_TP=pose_TP,
        mouth_T4=mouth_T4,
        pose_source="synthetic",
        extra={
            "opening_T": opening_T,
            "width_T": width_T,
            "loudness_T": speech.loudness[at],
            "accent_T": speech.accent[at],
            "blink_T": blink_T,
            "lips_TN2": truth_T8,
        },
    )


def _blinks(random: np.random.Generator, frames: int) -> np.ndarray:
    """0 open - 1 shut [T]; a blink of 5 frames about every 3 seconds."""
    blink_T = np.zeros(frames)
    at = int(random.integers(5, 60))
    while at < frames - 5:
        blink_T[at : at + 5] = [0.4, 0.95, 1.0, 0.7, 0.3]
        at += int(random.integers(40, 120))
    return blink_T


def split_of(number: int, speakers: int) -> str:
    """The last tenth of the speakers (at least one) is test, the tenth before it val, when there are three or more."""
    held_out = max(1, speakers // 10) if speakers >= 3 else 0
    if number >= speakers - held_out:
        return "test" if held_out else "train"
    return "val" if number >= speakers - 2 * held_out else "train"


def make_corpus(
    root: Path,
    clips: int = 12,
    seed: int = 0,
    speakers: int | None = None,
    duration_s: float = 3.0,
    size: int = 256,
    workers: int = 2,
) -> None:
    """Draw a corpus; an existing clip stays as it is, so that a broken run continues.

    Args:
        clips: how many in all; every speaker gets the same number, give or take one.
        speakers: how many identities (default: a third of the clips, at least three where clips allow).
        seed: of everything that is drawn, from 0 on.
        duration_s: of every clip. size: of the frames, pixels. workers: processes; they do not change the result.

    Raises:
        DataError: nothing can be drawn with these numbers, or `root` has clips that were not.
    """
    for name, value, least, most in (
        ("clips", clips, 1, 1_000_000),
        ("seed", seed, 0, 2**63 - 1),
        ("size", size, 16, 4096),
        ("seconds", duration_s, 0.2, 3600),
    ):
        if not least <= value <= most:
            raise DataError(f"a synthetic corpus with {name} {value}: wanted {least} or more, and at most {most}")
    speakers = min(clips, speakers or max(3, clips // 3))
    people = [Speaker.draw(seed, number) for number in range(speakers)]
    make_folder(root / "clips")
    jobs = [
        (root, seed, number, people[number % speakers], split_of(number % speakers, speakers), duration_s, size)
        for number in range(clips)
    ]
    _check_drawn(root, jobs)
    if workers > 1:
        try:
            with command.worker_pool(workers) as pool:
                drawn = [pool.submit(draw_clip, *job) for job in jobs]  # not map, which prints a traceback on Ctrl-C
                rows = [clip.result() for clip in drawn]
        except BrokenProcessPool as error:
            raise DataError("a worker process died, out of memory perhaps; try again with fewer workers") from error
    else:
        rows = [draw_clip(*job) for job in jobs]
    train = [Clip(row, place, root / "clips" / row.id) for place, row in enumerate(rows) if row.split == "train"]
    save_pose_range(root, measure_pose_range(train), f"percentiles 0.5-99.5 of {len(train)} training clips, widened")
    write_rows(root / MANIFEST, rows)  # last: where there is a manifest, the corpus is whole


def _check_drawn(root: Path, jobs: list[tuple[Path, int, int, Speaker, str, float, int]]) -> None:
    """Raises DataError where a clip that is there already is not one of these."""
    wanted = [
        _origin(seed, number, speaker, split) | {"frames": round(duration_s * FPS), "size": size}
        for _, seed, number, speaker, split, duration_s, size in jobs
    ]
    wanted_of = {values["id"]: values for values in wanted}
    for folder in sorted((root / "clips").glob("[!.]*")):
        row, values = existing_row(root, folder.name), wanted_of.get(folder.name)
        if row is None or values is None or asdict(row) != asdict(row) | values:
            raise DataError(
                f"{folder} was not drawn with these settings; give those that {root} was begun with, or another folder"
            )


BEGUN = ".drawing"  # is in a synthetic corpus that is not whole yet


@dataclass(frozen=True)
class SyntheticConfig:
    """A corpus for smoke runs; see `make_corpus`."""

    clips: int = 12
    speakers: int = 4
    duration_s: float = 3.0
    size: int = 256
    seed: int = 0


def make_if_absent(root: str | Path, config: SyntheticConfig | None) -> None:
    """Draw the corpus unless `root` holds a prepared one already, or none is wanted; go on with one half drawn.

    Raises:
        DataError: `root` holds something else: a mistyped or unprepared folder is not filled with drawings.
    """
    root = Path(root)
    if config is None or (root / MANIFEST).exists():
        return
    begun = root / BEGUN
    if root.exists() and not begun.is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise DataError(
            f"{root} is no prepared corpus (it has no {MANIFEST}) and is not empty, so nothing is drawn into it: "
            "prepare it with python -m datasets.prepare, or name another folder"
        )
    make_folder(root)
    begun.touch()
    logger.warning(
        "%s DOES NOT EXIST OR IS EMPTY: drawing %d synthetic clips there, cartoon faces for smoke runs only",
        root,
        config.clips,
    )
    make_corpus(root, config.clips, config.seed, config.speakers, config.duration_s, config.size)
    begun.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m datasets.synthetic", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the new corpus")
    parser.add_argument("--clips", type=command.positive, default=12)
    parser.add_argument("--speakers", type=command.positive, help="default: a third of the clips")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a clip")
    parser.add_argument("--size", type=command.positive, default=256, help="height and width of the frames, pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=command.positive, default=2, help="processes")
    args = parser.parse_args(arguments)
    make_corpus(args.output, args.clips, args.seed, args.speakers, args.seconds, args.size, args.workers)


if __name__ == "__main__":
    command.run(main, interrupted="interrupted; the same command continues")
