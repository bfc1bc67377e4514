"""Several prepared corpora as one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.audio import AudioFeatureConfig
from datasets.clips import RUNNING, load_manifest, load_pose_range, write_clip, write_rows
from datasets.errors import DataError
from datasets.features import recompute
from datasets.files import alone
from datasets.join import join


def corpus(root: Path, *clips: tuple[str, str, str], tilt: float = 0.0) -> Path:
    """A prepared corpus of black clips of two frames: (id, identity, split)."""
    rows = [
        write_clip(
            root,
            id=id,
            identity=identity,
            split=split,
            frames=[np.zeros((16, 16, 3), np.uint8)] * 2,
            pcm=np.zeros(1361, np.int16),
            features_TAF=np.zeros((2, 4, 41)),
            pose_TP=np.full((2, 6), tilt),
            mouth_T4=np.zeros((2, 4)),
            source=f"{id}.mp4",
            pose_source="synthetic",
        )
        for id, identity, split in clips
    ]
    write_rows(root / "manifest.csv", rows)
    return root


def test_the_joined_corpus_holds_the_clips_of_all_parts(tmp_path):
    a = corpus(tmp_path / "a", ("a1", "ann", "train"), ("b1", "bob", "val"), tilt=-0.3)
    b = corpus(tmp_path / "b", ("c1", "cid", "train"), tilt=0.3)
    for _ in range(2):  # again: brought up to date
        joined = join([a, b], tmp_path / "joined")
    assert [clip.row.id for clip in joined] == ["a1", "b1", "c1"]
    assert [clip.row.id for clip in load_manifest(tmp_path / "joined", "val")] == ["b1"]
    assert joined[2].pose()[0, 0] == np.float32(0.3) and joined[2].read_frames([1]).shape == (1, 16, 16, 3)
    limits = load_pose_range(tmp_path / "joined")
    assert limits.minimum[0] < -0.3 and limits.maximum[0] > 0.3  # of the training clips of both


def test_an_interruption_leaves_the_earlier_corpus(tmp_path, monkeypatch):
    a, b = corpus(tmp_path / "a", ("a1", "ann", "train")), corpus(tmp_path / "b", ("b1", "bob", "train"))
    join([a], tmp_path / "joined")

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("datasets.join.write_rows", stopped)
        with pytest.raises(KeyboardInterrupt):
            join([b], tmp_path / "joined")
    (clip,) = load_manifest(tmp_path / "joined")
    assert clip.row.id == "a1" and clip.pose().shape == (2, 6)
    join([b], tmp_path / "joined")
    assert [path.name for path in (tmp_path / "joined" / "clips").iterdir()] == ["b1"]


@pytest.mark.parametrize(
    ("other", "words"),
    [(("a1", "eve", "train"), "same name"), (("d1", "ann", "val"), "ann is in val here")],
)
def test_a_name_or_a_speaker_in_two_places_is_refused(tmp_path, other, words):
    a, b = corpus(tmp_path / "a", ("a1", "ann", "train")), corpus(tmp_path / "b", other)
    with pytest.raises(DataError, match=words):
        join([a, b], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_a_prepared_corpus_is_not_overwritten(tmp_path):
    a, b = corpus(tmp_path / "a", ("a1", "ann", "train")), corpus(tmp_path / "b", ("b1", "bob", "train"))
    with pytest.raises(DataError, match="is one of the corpora"):
        join([a, b], b)
    c = corpus(tmp_path / "c", ("c1", "cid", "train"))
    with pytest.raises(DataError, match="no joined corpus"):
        join([a, b], c)
    assert (c / "clips" / "c1" / "frames.zip").is_file()


def test_a_part_that_has_changed_since_is_noticed(tmp_path):
    a, b = corpus(tmp_path / "a", ("a1", "ann", "train")), corpus(tmp_path / "b", ("b1", "bob", "val"))
    join([a, b], tmp_path / "joined")
    recompute(b, AudioFeatureConfig())
    with pytest.raises(DataError, match=r"b has changed since .*joined was joined \(clip b1\); join it again"):
        load_manifest(tmp_path / "joined", "train")
    join([a, b], tmp_path / "joined")
    settings = json.loads((b / "settings.json").read_text())
    (b / "settings.json").write_text(json.dumps(settings | {"recomputing": True}))
    with pytest.raises(DataError, match="only partly recomputed"):
        load_manifest(tmp_path / "joined")
    (b / "settings.json").write_text(json.dumps(settings))
    rows = [clip.row for clip in load_manifest(b)]
    corpus(b, ("b2", "bea", "val"))
    write_rows(b / "manifest.csv", [*rows, *(clip.row for clip in load_manifest(b))])  # more clips do no harm
    assert len(load_manifest(tmp_path / "joined")) == 2 and len(load_manifest(b)) == 2


def test_features_are_computed_by_one_process_at_a_time(tmp_path):
    a = corpus(tmp_path / "a", ("a1", "ann", "train"))
    with alone(a / RUNNING), pytest.raises(DataError, match="another preparation is at work"):
        recompute(a, AudioFeatureConfig())


def test_a_join_that_cannot_be_leaves_nothing(tmp_path):
    a, b = corpus(tmp_path / "a", ("a1", "ann", "train")), corpus(tmp_path / "b", ("b1", "bob", "train"))
    (a / "settings.json").write_text(json.dumps({"audio": {"f0": "dio", "mean": "kept", "embedding": "none"}}))
    with pytest.raises(DataError, match=r"nowhere/manifest\.csv not found"):
        join([a, tmp_path / "nowhere"], tmp_path / "joined")
    with pytest.raises(DataError, match="or lies in it"):
        join([b], b / "clips")
    (b / "clips" / "b1" / "pose.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"pose\.npy"):
        join([b], tmp_path / "joined")
    shutil.rmtree(b / "clips" / "b1")
    with pytest.raises(DataError, match=r"b1 is missing, though .*b's manifest lists it"):
        join([b], tmp_path / "joined")
    (tmp_path / "begun" / "journal").mkdir(parents=True)
    with pytest.raises(DataError, match=r"is a corpus of datasets\.prepare"):
        join([corpus(tmp_path / "c", ("c1", "cid", "train"))], tmp_path / "begun")
    assert not (tmp_path / "joined").exists()
