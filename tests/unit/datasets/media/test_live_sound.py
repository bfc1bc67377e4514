"""Sound from a pipe: what is heard, and what is refused."""

import io

import numpy as np
import pytest
import soundfile

from datasets.errors import DataError
from datasets.media.live_sound import LiveSound


def wav(samples: int, **settings: str) -> bytes:
    file = io.BytesIO()
    tone_N = 0.1 * np.sin(np.arange(samples) / 10)
    soundfile.write(file, tone_N, 16_000, **({"format": "WAV", "subtype": "PCM_16"} | settings))
    return file.getvalue()


def heard(data: bytes) -> int:
    return sum(len(block) for block in LiveSound(io.BytesIO(data)).blocks())


def test_wavs_and_raw_samples_are_heard_to_the_last_whole_sample():
    assert heard(wav(5000)) == heard(wav(5000, format="RF64")) == 5000
    assert heard(wav(5000)[:-1]) == 4999
    assert heard(b"\1\0" * 5000 + b"\1") == 5000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (wav(5000)[:45], "1 parts of it cannot be decoded"),
        (wav(5000)[:44], "cut off before its first sound"),
        (wav(5000)[:20], "begins like a wav and is none"),
        (wav(5000, format="FLAC"), "is a FLAC file; send a wav"),
        (wav(5000, format="OGG", subtype="VORBIS"), "is an Ogg file; send a wav"),
        (wav(5000, format="AIFF"), "is an AIFF file; send a wav"),
        (b"ID3\4", "is an MP3 file; send a wav"),
        (b"\xff\xd8\xff\xe0", "is a picture"),
        (b"", "ended before any sound came"),
        (b"1", "ended before any sound came"),
    ],
)
def test_what_is_no_sound_gets_a_sentence(data, words):
    with pytest.raises(DataError, match=words):
        heard(data)
