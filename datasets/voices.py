"""The clips of a corpus spoken by other voices: higher or lower, throat and all, the words where they were (ours).

A sound that is played faster has its pitch and its formants higher by the same factor. Its features, laid back over
the clip's frames, are those of somebody else who says the same. From few people a network otherwise learns how these
people sound; pitch alone (`datasets.augment.jitter_voice`) is the lesser part of that.

    DIR/KEY/SOUND.npy    float32 [V, T, A, F], computed once and kept

KEY names the factors and the setting of the features, SOUND the clip and what is heard in it (`ClipRow.sound`).

Letters: V voice, T video frame, A audio window in a frame (4), F audio feature, R row (one each 10 ms), S sample.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datasets.audio import FEATURES, FILTERBANK, ROWS_PER_FRAME, VOICED, WINDOW, AudioFeatureConfig, features
from datasets.clips import Clip
from datasets.errors import DataError
from datasets.files import read_array, written_beside
from datasets.media.streams import SAMPLE_RATE
from datasets.pitch import HOP

LOWEST, HIGHEST = 0.5, 2.0  # factors


def features_in_voice(pcm_S: np.ndarray, factor: float, setting: AudioFeatureConfig, frames: int) -> np.ndarray:
    """Features of a sound in a voice `factor` times as high, [T, A, F] for so many frames.

    Each value is taken from where its moment lies in the faster sound, between two rows (of the speech embedding,
    which has one a frame, between two frames). A spectrum's moment is the middle of its window, F0's the row's begin,
    an embedding's its frame: what it hears ends a fixed time after that.
    """
    from librosa import resample

    played_S = resample(pcm_S.astype(np.float32), orig_sr=round(factor * SAMPLE_RATE), target_sr=SAMPLE_RATE)
    played_S = played_S.round().clip(-(2**15), 2**15 - 1).astype(np.int16)
    found_TAF = features(played_S, setting)
    pace = len(played_S) / len(pcm_S)
    found_RF, count = found_TAF[..., :FEATURES].reshape(-1, FEATURES), frames * ROWS_PER_FRAME
    spectrum_RF = _taken(found_RF[:, : FILTERBANK.stop], count, pace, WINDOW / 2 / HOP)
    rows_RF = np.hstack([spectrum_RF, _taken(found_RF[:, FILTERBANK.stop :], count, pace)])
    rows_RF[:, VOICED] = rows_RF[:, VOICED].round()
    embedding_TE = _taken(found_TAF[..., FEATURES:].reshape(len(found_TAF), -1), frames, pace)
    parts = (part.reshape(frames, ROWS_PER_FRAME, -1) for part in (rows_RF, embedding_TE))
    return np.concatenate(list(parts), axis=2).astype(np.float32)


def _taken(values_ND: np.ndarray, count: int, pace: float, moment: float = 0.0) -> np.ndarray:
    """Row n of `count` is what `values_ND` holds at `pace` times its moment, float64; past the ends the outermost row.

    Args:
        moment: of row 0, in rows; row n's is n later.
    """
    at, known = (np.arange(count) + moment) * pace - moment, np.arange(len(values_ND))
    columns = [np.interp(at, known, column_N) for column_N in values_ND.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


class VoiceStore:
    """The features of clips in other voices."""

    def __init__(self, folder: str | Path, factors: Sequence[float], setting: AudioFeatureConfig) -> None:
        self.factors, self.setting = tuple(factors), setting
        key = hashlib.sha256(f"{self.factors} {setting}".encode()).hexdigest()[:16]
        self.folder = Path(folder) / f"voices_{key}"

    def path(self, clip: Clip) -> Path:
        return self.folder / f"{clip.row.sound}.npy"

    def fill(
        self,
        clips: Sequence[Clip],
        load: Callable[[Dataset], Iterable[Any]] = iter,
        progress: Callable[[list[Clip]], Iterable[Clip]] = iter,
    ) -> int:
        """Keep the features of every clip that has none here yet -> how many clips these were.

        Args:
            load: hands the items of a dataset over in order, from several processes.
            progress: hands the clips on and shows how many are done (tqdm).
        """
        if not self.factors:
            return 0
        todo = [clip for clip in clips if not self.path(clip).is_file()]
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in zip(progress(todo), load(_Unheard(self, todo)), strict=True):
            pass
        return len(todo)

    def make(self, clip: Clip) -> None:
        """Keep one clip's features, whole or not at all."""
        pcm_S = clip.pcm()
        voices = [features_in_voice(pcm_S, factor, self.setting, clip.frames) for factor in self.factors]
        with written_beside(self.path(clip)) as partial, partial.open("wb") as file:
            np.save(file, np.stack(voices))

    def read(self, clip: Clip, voice: int) -> np.ndarray:
        """Features of a clip in one of the voices, [T, A, F].

        Raises:
            DataError: the file is missing or damaged.
        """
        path = self.path(clip)
        array_VTAF = read_array(path, "features in other voices")
        wanted = (len(self.factors), clip.frames, ROWS_PER_FRAME, self.setting.count)
        if array_VTAF.shape != wanted or array_VTAF.dtype != np.float32:
            raise DataError(
                f"{path}: holds {array_VTAF.dtype} {array_VTAF.shape}, wanted float32 {wanted};"
                " delete it, it is computed again when training starts"
            )
        return array_VTAF[voice]


class _Unheard(Dataset):
    """Makes the features of clip n when item n is asked for."""

    def __init__(self, store: VoiceStore, clips: Sequence[Clip]) -> None:
        self.store, self.clips = store, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, n: int) -> int:
        self.store.make(self.clips[n])
        return n
