"""The words of a clip and when they are spoken, where somebody has aligned them (GRID's .align files)."""

from pathlib import Path
from typing import NamedTuple

from datasets.clips import Clip
from datasets.errors import DataError

ALIGNMENT_RATE = 25_000  # of the .align files' times, a second


class Word(NamedTuple):
    """A spoken word and its time in the sound, seconds."""

    start_s: float
    end_s: float
    text: str


def read_alignment(path: Path) -> list[Word]:
    """Words of a GRID .align file, silences left out. Raises DataError."""
    words = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            start, end, text = line.split()
            if text not in ("sil", "sp"):
                words.append(Word(int(start) / ALIGNMENT_RATE, int(end) / ALIGNMENT_RATE, text))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no alignment (lines of start, end and word): {error}") from error
    return words


def words_of(clip: Clip, folder: str) -> list[Word] | None:
    """The words of a prepared clip, in seconds from its first frame, of FOLDER/SPEAKER/STEM.align; None without a file.

    STEM is that of the file that the clip was prepared from. Raises DataError if the file is damaged.
    """
    path = Path(folder) / clip.row.identity / f"{Path(clip.row.source).stem}.align"
    if not folder or not path.is_file():
        return None
    start_s = clip.row.start_s
    return [Word(word.start_s - start_s, word.end_s - start_s, word.text) for word in read_alignment(path)]
