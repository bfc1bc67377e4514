"""Table 3 from the participants' files of answers.

The records here are the two formats on disk: STUDY.key.json, and a file of answers that the page saves.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets.errors import DataError
from datasets.files import make_folder, output_file, require_file, written_beside
from evaluation import EvaluationError
from evaluation.bootstrap import interval

QUESTION = "Does the video look natural?"  # Sec. 5.5
SCORES = (1, 2, 3, 4, 5)
NATURAL = 4  # from here on: Table 3 counts 4 and 5
KEY_FORMAT, ANSWERS_FORMAT = "naturalness-key-1", "naturalness-answers-1"
BOOTSTRAP_SAMPLES = 10_000
WATCHED = 0.5  # of a video: the report says how many ratings were given after less


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Video(_Record):
    """What an opaque id stands for."""

    method: str
    clip: str


class Key(_Record):
    """STUDY.key.json: what the ids in the page stand for."""

    format: Literal["naturalness-key-1"]
    study: str  # names the study in its answers
    salt: str  # of the hashes, hexadecimal
    question: str
    videos: Annotated[dict[str, Video], Field(min_length=1)]  # by id


class Rating(_Record):
    """One score."""

    video: str
    score: Annotated[int, Field(ge=SCORES[0], le=SCORES[-1])]
    shown: str  # when the video appeared, ISO 8601
    answered: str  # when the score was given
    plays: Annotated[int, Field(ge=0)]
    watched: Annotated[float, Field(ge=0, le=1)]  # share of the video that was played


class Answers(_Record):
    """One participant's file."""

    format: Literal["naturalness-answers-1"]
    study: str
    participant: Annotated[str, Field(min_length=1)]
    seed: int  # of the order
    order: list[str]  # in which the videos came
    started: str  # ISO 8601
    finished: str
    answers: list[Rating]


@dataclass(frozen=True)
class Estimate:
    """A mean over ratings."""

    value: float
    interval: tuple[float, float] | None  # 95 %, bootstrap over participants; None for a single one


def read_key(path: Path) -> Key:
    """Raises DataError."""
    try:
        return Key.model_validate_json(require_file(path, "key").read_bytes())
    except ValidationError as error:
        raise DataError(
            f"--key {path} is not the key of a study ({_first(error)}); name the one that `make` wrote beside the page"
        ) from error


def read_answers(paths: Iterable[Path], key: Key) -> tuple[list[Answers], list[str]]:
    """Usable answers, and a sentence for each file that is refused.

    Of files with one participant the first that was finished counts, so that a second try cannot replace it.
    """
    usable: list[tuple[Answers, Path]] = []
    refused = []
    for path in paths:
        try:
            usable.append((checked_answers(path, key), path))
        except DataError as error:
            refused.append(str(error))
    counted: dict[str, tuple[Answers, Path]] = {}
    for answers, path in sorted(usable, key=lambda pair: (pair[0].finished, pair[1])):
        if answers.participant in counted:
            earlier = counted[answers.participant][1]
            refused.append(f"{path} is a duplicate: {earlier} has participant {answers.participant} too, and counts")
        else:
            counted[answers.participant] = (answers, path)
    return [answers for answers, _ in counted.values()], refused


def checked_answers(path: Path, key: Key) -> Answers:
    """One participant's file. Raises DataError if it is damaged, of another study, or incomplete."""
    try:
        answers = Answers.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise DataError(f"{path} is damaged or no file of answers ({_first(error)})") from error
    if answers.study != key.study:
        raise DataError(f"{path} belongs to study {answers.study}, the key to {key.study}")
    rated = [rating.video for rating in answers.answers]
    if sorted(rated) != sorted(key.videos) or rated != answers.order:
        raise DataError(f"{path} does not rate each of the {len(key.videos)} videos of this study once; it was changed")
    return answers


def table_3(answers: list[Answers], key: Key) -> dict[str, dict[str, Estimate]]:
    """Table 3: method -> "1" ... "5" and "natural" (shares of the ratings, 0..1) and "mean" (1..5)."""
    table = {}
    for method in sorted({video.method for video in key.videos.values()}):
        rows = [
            (each.participant, rating.score)
            for each in answers
            for rating in each.answers
            if key.videos[rating.video].method == method
        ]
        participants, score_N = [who for who, _ in rows], np.array([score for _, score in rows])
        columns = {str(score): score_N == score for score in SCORES}
        columns |= {"natural": score_N >= NATURAL, "mean": score_N}
        table[method] = {
            name: Estimate(float(np.mean(column)), interval(column.astype(float), participants, BOOTSTRAP_SAMPLES))
            for name, column in columns.items()
        }
    return table


def score_answers(files: list[Path], key_path: Path, output: Path) -> list[str]:
    """Write output/study.json and output/study.md. -> sentences about refused files.

    Args:
        files: files of answers, or folders of them.

    Raises:
        DataError: no such file, no key, or an output that is an input. EvaluationError: no usable answers.
    """
    key = read_key(key_path)
    paths = listed(files, key_path)
    if output.resolve() in [path.resolve() for path in files]:
        raise DataError(f"--output {output} is one of --answers, and would count as answers; name another")
    table_file, text_file = (output_file(output / name, (key_path, *paths)) for name in ("study.json", "study.md"))
    answers, refused = read_answers(paths, key)
    if not answers:
        reason = f": {refused[0]}" if refused else ""
        raise EvaluationError(f"no usable answers in {' '.join(map(str, files))}{reason}")
    table = table_3(answers, key)
    hasty = sum(rating.watched < WATCHED for each in answers for rating in each.answers)
    result = {
        "study": key.study,
        "question": key.question,
        "participants": len(answers),
        "clips": len({video.clip for video in key.videos.values()}),
        "ratings": sum(len(each.answers) for each in answers),
        "ratings_before_half_was_watched": hasty,
        "bootstrap": {"samples": BOOTSTRAP_SAMPLES, "unit": "participant", "level": 0.95},
        "methods": {
            method: {name: {"value": e.value, "interval": e.interval} for name, e in columns.items()}
            for method, columns in table.items()
        },
        "refused": refused,
    }
    make_folder(output)
    for path, text in ((table_file, json.dumps(result, indent=1) + "\n"), (text_file, report(result, table))):
        with written_beside(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return refused


def listed(files: list[Path], key_path: Path) -> list[Path]:
    """Files of answers: the named ones and every .json of named folders, but not the key. Raises DataError."""
    paths: list[Path] = []
    for path in files:
        if not path.exists():
            raise DataError(f"--answers {path} not found; check the name")
        paths += sorted(path.glob("*.json")) if path.is_dir() else [path]
    unique = {path.resolve(): path for path in paths if path.resolve() != key_path.resolve()}
    return list(unique.values())


def report(result: dict, table: dict[str, dict[str, Estimate]]) -> str:
    """Table 3 as Markdown."""
    lines = [
        "# User study (Sec. 5.5, Table 3)",
        "",
        f'"{result["question"]}" from 1 (not at all) to 5 (completely): {result["participants"]} participants, '
        f"{result['clips']} clips of {len(table)} methods, {result['ratings']} ratings. In brackets: 95 % bootstrap "
        f"intervals over participants ({BOOTSTRAP_SAMPLES} samples).",
        "",
        "| method | 1 | 2 | 3 | 4 | 5 | natural (4+5) | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, columns in table.items():
        cells = [_cell(e, 1, "") if name == "mean" else _cell(e, 100, " %") for name, e in columns.items()]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", f"Ratings given before half of the video was watched: {result['ratings_before_half_was_watched']}."]
    if result["refused"]:
        lines += ["", "Files that were refused:", "", *(f"- {sentence}" for sentence in result["refused"])]
    return "\n".join(lines) + "\n"


def _cell(estimate: Estimate, scale: float, unit: str) -> str:
    digits = 1 if scale == 100 else 2
    text = f"{scale * estimate.value:.{digits}f}{unit}"
    if estimate.interval is None:
        return text
    low, high = (f"{scale * side:.{digits}f}" for side in estimate.interval)
    return f"{text} [{low}, {high}]"


def _first(error: ValidationError) -> str:
    """The first fault in a few words."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else fault["msg"]
