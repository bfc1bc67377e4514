"""Videos of another system and the references they belong to, by stem."""

from dataclasses import dataclass
from pathlib import Path

from datasets.clips import MANIFEST, load_manifest
from datasets.errors import DataError
from datasets.prepare.sources import VIDEO_SUFFIXES
from evaluation import EvaluationError
from evaluation.videos.truth import Item, PreparedItem, VideoItem

NAMED = 5  # stems in a message


@dataclass(frozen=True)
class Matches:
    """Attributes:
    items: references that have a generated video, by id.
    generated: stem -> generated video.
    missing: references without a generated video. extra: generated videos without a reference.
    """

    items: list[Item]
    generated: dict[str, Path]
    missing: list[str]
    extra: list[str]

    def notes(self) -> list[str]:
        """A sentence each for what has no partner."""
        notes = []
        if self.missing:
            notes.append(f"{len(self.missing)} references have no generated video: {_some(self.missing)}")
        if self.extra:
            notes.append(f"{len(self.extra)} generated videos have no reference: {_some(self.extra)}")
        return notes


def match(generated: Path, reference: Path, split: str) -> Matches:
    """Pair videos below two folders; `reference` may be a prepared corpus, of which `split` counts.

    Raises:
        DataError: a folder is missing, or two videos below it share a stem.
        EvaluationError: nothing matches.
    """
    videos = _by_stem(generated, "--generated")
    if (reference / MANIFEST).is_file():
        items: dict[str, Item] = {clip.row.id: PreparedItem(clip) for clip in load_manifest(reference, split)}
    else:
        found = _by_stem(reference, "--reference")
        items = {stem: VideoItem(path, _identity(path, reference)) for stem, path in found.items()}
    both = sorted(videos.keys() & items.keys())
    missing, extra = sorted(items.keys() - videos.keys()), sorted(videos.keys() - items.keys())
    if not both:
        raise EvaluationError(
            f"no video of {generated} has the stem of one of {reference}: "
            f"{_some(extra)} against {_some(missing)}; rename them alike"
        )
    return Matches([items[stem] for stem in both], videos, missing, extra)


def _by_stem(folder: Path, option: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{option} {folder} is not a folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DataError(f"{option} {folder} holds no video ({' '.join(sorted(VIDEO_SUFFIXES))})")
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise DataError(f"{option}: {found[path.stem]} and {path} have the same stem; only one may be there")
        found[path.stem] = path
    return found


def _identity(path: Path, root: Path) -> str:
    """The first folder below the root names the speaker; a file at the top is its own."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else path.stem


def _some(stems: list[str]) -> str:
    return ", ".join(stems[:NAMED]) + (f" and {len(stems) - NAMED} more" if len(stems) > NAMED else "")
