"""Look at a prepared corpus: counts, statistics, faults, and a contact sheet.

    python -m datasets.inspect PREPARED [--sheet PREPARED/sheet.png] [--clips 8] [--verify]

Exit code 1 when there is an error: an identity in two splits, features that are recomputed only in part, or (--verify)
a file that is not the one prepared.

Letters: T video frame, H W picture.
"""

import argparse
import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np

from datasets import command
from datasets.clips import REJECTED, SPLITS, Clip, load_audio_features, load_manifest, load_pose_range, verify
from datasets.errors import DataError
from datasets.media.image import write_png
from datasets.media.streams import FPS
from datasets.pose import render_boxes

AXES = ("rx rad", "ry rad", "rz rad", "tx mm", "ty mm", "tz mm")
TILE, COLUMNS, STRIP = 192, 8, 96  # pixels, frames a clip, height of the sound strip
GREEN, RED, WHITE, GREY = (60, 230, 60), (255, 70, 70), (255, 255, 255), (110, 110, 110)


def leaks(clips: list[Clip]) -> list[str]:
    """One sentence for every identity that is in more than one split."""
    splits = defaultdict(set)
    for clip in clips:
        splits[clip.row.identity].add(clip.row.split)
    return [
        f"identity {identity} is in {' and '.join(sorted(its_splits))}: evaluation would know the face"
        for identity, its_splits in sorted(splits.items())
        if len(its_splits) > 1
    ]


def describe(root: Path, clips: list[Clip]) -> str:
    """Counts, durations, pose and pitch statistics, rejections: text for people."""
    lines = [f"{root}: {len(clips)} clips"]
    for split in SPLITS:
        rows = [clip.row for clip in clips if clip.row.split == split]
        if rows:
            frames = np.array([row.frames for row in rows])
            lines.append(
                f"  {split:5} {len(rows):6} clips {len({row.identity for row in rows}):5} identities "
                f"{frames.sum() / FPS / 60:8.1f} min; "
                f"frames a clip {frames.min()} - {np.median(frames):.0f} - {frames.max()}"
            )
    sources = Counter(clip.row.pose_source for clip in clips)
    success = np.array([clip.row.pose_success for clip in clips])
    lines.append(
        f"  pose from {dict(sources)}, measured in {success.mean():.2%} of frames, worst clip {success.min():.1%}"
    )
    pose = np.concatenate([clip.pose() for clip in clips])
    spread = np.mean([clip.pose().std(axis=0) for clip in clips], axis=0)
    pose_range = load_pose_range(root)
    lines.append("  pose        1 %      50 %      99 %   std in a clip   range for [-1, 1]     outside")
    for axis, name in enumerate(AXES):
        low, middle, high = np.percentile(pose[:, axis], [1, 50, 99])
        minimum, maximum = pose_range.minimum[axis], pose_range.maximum[axis]
        outside = np.mean((pose[:, axis] < minimum) | (pose[:, axis] > maximum))
        measured = f"{low:8.3f}  {middle:8.3f}  {high:8.3f}  {spread[axis]:10.3f}"
        lines.append(f"  {name}  {measured}   {minimum:9.3f} .. {maximum:8.3f}  {outside:8.2%}")
    pitch, voiced = zip(*((f[..., 39], f[..., 40] > 0) for f in (clip.features() for clip in clips)), strict=True)
    voices = np.concatenate([p[v] for p, v in zip(pitch, voiced, strict=True)])
    share = np.mean([v.mean() for v in voiced])
    if len(voices):
        low, middle, high = np.percentile(voices, [5, 50, 95])
        lines.append(f"  pitch {low:.0f} - {middle:.0f} - {high:.0f} Hz (5, 50, 95 %), voiced {share:.1%}")
    mouth = np.concatenate([clip.mouth() for clip in clips])
    known = np.isfinite(mouth).all(axis=1)
    if known.any():
        width = np.median(mouth[known, 2])
        lines.append(f"  mouth {width:.0f} px wide (median, of 256), known in {known.mean():.1%} of frames")
    if (root / REJECTED).is_file():
        with (root / REJECTED).open(newline="", encoding="utf-8") as file:
            reasons = Counter(row["reason"].split(":")[0][:70] for row in csv.DictReader(file))
        lines.append(
            f"  rejected {sum(reasons.values())}" + "".join(f"\n    {n:6} {r}" for r, n in reasons.most_common(8))
        )
    return "\n".join(lines)


def contact_sheet(clips: list[Clip]) -> np.ndarray:
    """One block a clip: frames with the head's box and the mouth, below them the wave (grey) and the pitch (green)."""
    return np.concatenate([_block(clip) for clip in clips])


def _block(clip: Clip) -> np.ndarray:
    at = np.linspace(0, clip.frames - 1, COLUMNS).astype(int)
    boxes, mouths = render_boxes(clip.pose()[at]), clip.mouth()[at]
    tiles = []
    for frame, box, mouth in zip(clip.read_frames(at), boxes, mouths, strict=True):
        tile = cv2.resize(frame, (2 * TILE, 2 * TILE), interpolation=cv2.INTER_LINEAR)
        tile[cv2.resize(box, (2 * TILE, 2 * TILE), interpolation=cv2.INTER_NEAREST) > 0] = GREEN
        if np.isfinite(mouth).all():
            x, y, width, opening = mouth * (2 * TILE / 256)
            axes = (round(width / 2), max(2, round(opening / 2)))
            cv2.ellipse(tile, (round(x), round(y)), axes, 0, 0, 360, RED, 2, cv2.LINE_AA)
        tiles.append(cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA))
    strip = _sound_strip(clip, TILE * COLUMNS)
    _write(strip, f"{clip.row.id}  {clip.row.split}  {clip.frames} frames  crop {clip.row.crop}", (6, 14))
    return np.concatenate([np.concatenate(tiles, axis=1), strip])


def _sound_strip(clip: Clip, width: int) -> np.ndarray:
    strip = np.full((STRIP, width, 3), 20, np.uint8)
    pcm = clip.pcm().astype(np.float32)
    columns = np.array_split(pcm / max(np.abs(pcm).max(), 1), width)
    for x, samples in enumerate(columns):
        low, high = ((1 - np.array([samples.min(), samples.max()])) * STRIP / 2).astype(int)
        cv2.line(strip, (x, low), (x, high), GREY, 1)
    features_TAF = clip.features()
    rows = features_TAF.reshape(-1, features_TAF.shape[2])
    for row, (pitch, voiced) in enumerate(rows[:, 39:41]):
        if voiced:
            height = np.log2(np.clip(pitch, 60, 500) / 60) / np.log2(500 / 60)  # mean=removed: may be below 0 Hz
            y = STRIP - 1 - int(height * (STRIP - 2))
            cv2.circle(strip, (int((row + 0.5) / len(rows) * width), y), 1, GREEN, -1)
    return strip


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, WHITE, 1, cv2.LINE_AA)


def pick(clips: list[Clip], number: int) -> list[Clip]:
    """So many clips, of as many identities as possible, evenly from the manifest."""
    by_identity = defaultdict(list)
    for clip in clips:
        by_identity[clip.row.identity].append(clip)
    turns = sorted(
        (place, identity, clip.index) for identity, own in by_identity.items() for place, clip in enumerate(own)
    )
    if turns and len(by_identity) > number:
        turns = turns[:: len(by_identity) // number]
    chosen = {index for _, _, index in turns[:number]}
    return [clip for clip in clips if clip.index in chosen]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.inspect", description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path, help="the prepared corpus")
    parser.add_argument("--sheet", type=Path, help="where the contact sheet goes (default ROOT/sheet.png)")
    parser.add_argument("--clips", type=command.positive, default=8, help="clips on the contact sheet")
    parser.add_argument("--verify", action="store_true", help="read every file and compare its checksum")
    args = parser.parse_args(arguments)
    clips = load_manifest(args.root)
    print(describe(args.root, clips))
    errors = leaks(clips)
    try:
        load_audio_features(args.root)
    except DataError as unfinished:
        errors.append(str(unfinished))
    if args.verify:
        errors += [problem for clip in clips for problem in verify(clip)]
    sheet = args.sheet or args.root / "sheet.png"
    write_png(sheet, contact_sheet(pick(clips, args.clips)))
    print(f"  contact sheet: {sheet}")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    command.run(main)
