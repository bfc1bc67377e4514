"""The page of the study: one file that holds the videos under names that tell nothing, and the key to these names."""

import base64
import hashlib
import hmac
import html
import json
import re
import secrets
from pathlib import Path

from datasets.errors import DataError
from datasets.files import output_file, written_beside
from datasets.media.streams import open_media
from evaluation import EvaluationError
from evaluation.study.answers import KEY_FORMAT, QUESTION, Key, Video

TEMPLATE = Path(__file__).with_name("study.html")
ID_DIGITS = 16  # hexadecimal, of the hash that names a video
LARGEST_MB = 300  # of all videos: base64 makes a third more, and browsers hold no text much beyond 500 MB


def make_page(
    folder: Path, output: Path, title: str, methods: list[str] | None = None, clips: list[str] | None = None
) -> tuple[Path, int]:
    """Write the page and its key. -> path of the key, number of videos.

    Args:
        folder: METHOD/CLIP.mp4, the same clips for every method. methods, clips: those to take, None: all.

    Raises:
        DataError: a video cannot be read, or browsers would not play it, or page or key cannot be written.
        EvaluationError: no videos, not the same clips for all methods, too many MB, or the key is there already.
    """
    paths = find_videos(folder, methods, clips)
    inputs = (*paths.values(), TEMPLATE)
    output_file(output, inputs)
    key_path = output.with_suffix(".key.json")
    if key_path.exists():
        raise EvaluationError(
            f"{key_path} exists, and the answers of its study cannot be read without it; choose another --output"
        )
    output_file(key_path, (*inputs, output))
    salt = secrets.token_bytes(16)
    by_id = {opaque(salt, video): (video, path) for video, path in paths.items()}
    study = opaque(salt, Video(method="", clip=""))
    key = Key(
        format=KEY_FORMAT,
        study=study,
        salt=salt.hex(),
        question=QUESTION,
        videos={name: video for name, (video, _) in by_id.items()},
    )
    page = page_of(study, title, {name: path for name, (_, path) in by_id.items()})
    with written_beside(key_path) as new_key, written_beside(output) as new_page:  # a key never stands without its page
        new_key.write_text(key.model_dump_json(indent=1) + "\n", encoding="utf-8")
        new_page.write_text(page, encoding="utf-8")
    return key_path, len(by_id)


def find_videos(folder: Path, methods: list[str] | None, clips: list[str] | None) -> dict[Video, Path]:
    """The videos of a study, checked; see `make_page`."""
    if not folder.is_dir():
        raise EvaluationError(f"--videos {folder} is not a folder; give one with METHOD/CLIP.mp4")
    videos: dict[Video, Path] = {}
    for path in sorted(folder.glob("*/*.mp4")):
        video = Video(method=path.parent.name, clip=path.stem)
        if (methods is None or video.method in methods) and (clips is None or video.clip in clips):
            videos[video] = path
    all_methods = {video.method for video in videos} | set(methods or ())
    all_clips = {video.clip for video in videos} | set(clips or ())
    if not videos:
        raise EvaluationError(f"--videos {folder} holds no METHOD/CLIP.mp4 that was asked for; check the names")
    for method in sorted(all_methods):
        for clip in sorted(all_clips):
            if Video(method=method, clip=clip) not in videos:
                raise EvaluationError(
                    f"{folder / method / clip}.mp4 is missing: every method must show every clip; add it, or choose "
                    "with --methods and --clips"
                )
    size_mb = sum(path.stat().st_size for path in videos.values()) / 1e6
    if size_mb > LARGEST_MB:
        raise EvaluationError(
            f"{len(videos)} videos have {size_mb:.0f} MB, more than the {LARGEST_MB} MB of a page; choose fewer clips"
        )
    silent = [path for path in videos.values() if not playable_sound(path)]
    if silent and len(silent) < len(videos):
        raise EvaluationError(f"{silent[0]} has no sound and others have; all or none may")
    return videos


def playable_sound(path: Path) -> bool:
    """Whether a video has sound, after checking that every browser plays it. Raises DataError."""
    with open_media(path, "video", "video") as (container, stream):
        coding = (stream.codec_context.name, stream.codec_context.pix_fmt)
        if coding != ("h264", "yuv420p"):
            raise DataError(f"{path} is {' '.join(map(str, coding))}; browsers play H.264 with yuv420p, convert it")
        return len(container.streams.audio) > 0


def opaque(salt: bytes, video: Video) -> str:
    """A name for a video that tells nothing without the salt: HMAC-SHA256, shortened."""
    return hmac.new(salt, f"{video.method}/{video.clip}".encode(), hashlib.sha256).hexdigest()[:ID_DIGITS]


def page_of(study: str, title: str, videos: dict[str, Path]) -> str:
    """The page: the template with the videos, in the order of their ids, as base64."""
    ids = sorted(videos)
    embedded = "\n".join(
        f'<script type="text/plain" id="video-{name}">{base64.b64encode(videos[name].read_bytes()).decode()}</script>'
        for name in ids
    )
    parts = {
        "title": html.escape(title),
        "question": html.escape(QUESTION),
        "study": json.dumps({"study": study, "videos": ids}),
        "videos": embedded,
    }
    return re.sub(r"{{(\w+)}}", lambda place: parts[place[1]], TEMPLATE.read_text(encoding="utf-8"))
