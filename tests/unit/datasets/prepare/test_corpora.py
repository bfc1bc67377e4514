"""The corpus adapters: names, lists, splits."""

import os
from pathlib import Path

import pytest

from datasets.errors import DataError
from datasets.prepare.corpora import grid, lrw, videos, voxceleb
from datasets.prepare.sources import FaceBoxes, FaceTracks, HeadBox, OneFace, WholePicture, safe_id

METADATA = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
TXT = "Identity  : \tid10001\nReference : \tvid\nOffset    : \t-5\n\n"
TXT += "FRAME \tX \tY \tW \tH \n000100 \t47 \t48 \t269 \t268 \n000101 \t77 \t18 \t268 \t268 \n"


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_grid_tree_and_speaker_split(tmp_path):
    tree(
        tmp_path,
        "s1/bbaf2n.mpg",
        "s1/bbaf2n.mp4",
        "s2/video/mpg_6000/lwae8n.mpg",
        "s9/a.mpg",
        "align/s1/bbaf2n.align",
        "x.mp4",
    )
    found = {source.id: source for source in grid.sources(tmp_path)}
    assert set(found) == {"s1_bbaf2n", "s2_lwae8n", "s9_a"}
    assert found["s1_bbaf2n"].path.suffix == ".mp4"
    assert [found[id].split for id in sorted(found)] == ["train", "test", "val"]
    assert found["s1_bbaf2n"].stretches[0].framing == OneFace()
    assert not grid.VAL & grid.TEST


def test_lrw_tree(tmp_path):
    tree(
        tmp_path,
        "ABOUT/train/ABOUT_00001.mp4",
        "ABOUT/test/ABOUT_00001.mp4",
        "ABOUT/train/ABOUT_00001.txt",
        "loose.mp4",
    )
    found = lrw.sources(tmp_path)
    assert sorted((s.id, s.split) for s in found) == [("test_ABOUT_00001", "test"), ("train_ABOUT_00001", "train")]
    assert len({s.identity for s in found}) == 2 and found[0].stretches[0].framing == WholePicture()


def test_any_folder(tmp_path):
    tree(tmp_path, "ann/day 1/talk.MP4", "ann/talk.mov", "bob.webm", ".hidden.mp4", "notes.txt")
    found = {source.id: source.identity for source in videos.sources(tmp_path)}
    assert found == {"ann_day-1_talk": "ann", "ann_talk": "ann", "bob": "bob"}
    tree(tmp_path, "ann/talk.mp4")
    assert {s.id for s in videos.sources(tmp_path)} >= {"ann_talk.mov", "ann_talk.mp4", "bob"}


def test_linked_folders_are_entered(tmp_path):
    tree(tmp_path / "store", "s1/a.mpg")
    (tmp_path / "raw").mkdir()
    os.symlink(tmp_path / "store" / "s1", tmp_path / "raw" / "s1")
    assert [source.id for source in grid.sources(tmp_path / "raw")] == ["s1_a"]


def test_fomm_chunks_get_their_row_and_offset(tmp_path):
    tree(tmp_path, "id10001/vid/chunk_videos/vid#00001#100-260.mp4", "id10001/vid/chunk_videos/vid#00002#300-400.mp4")
    (tmp_path / "vox-metadata.csv").write_text(METADATA + "vid,100,260,128-72-640-576,25,1280,720,test,id10001\n")
    tree(tmp_path, "txt/id10001/vid/00001.txt")
    (tmp_path / "txt/id10001/vid/00001.txt").write_text(TXT)
    first, second = sorted(voxceleb.sources(tmp_path, [], None), key=lambda s: s.id)
    assert first.id == "id10001_vid_00001" and first.split == "test" and first.identity == "id10001"
    assert first.stretches[0].framing == HeadBox(0.1, 0.1, 0.5, 0.8)
    assert first.stretches[0].offset_s == pytest.approx(0.2)  # Offset -5: the sound lies 5 frames later in the file
    assert second.stretches[0].framing == FaceTracks() and second.split == "train"


def test_whole_videos_are_cut_by_the_list(tmp_path):
    tree(tmp_path, "id10270/vid.mp4")
    (tmp_path / "m.csv").write_text(
        METADATA + "vid,50,149,0-0-64-72,25,128,72,,id10270\nvid,300,399,0-0-64-72,50,128,72,,id10270\n"
    )
    (source,) = voxceleb.sources(tmp_path, [tmp_path / "m.csv"], None)
    assert [(s.id, s.start_s, s.end_s) for s in source.stretches] == [
        ("id10270_vid_000050-000149", 2.0, 6.0),
        ("id10270_vid_000300-000399", 6.0, 8.0),
    ]
    assert source.split == "test"  # VoxCeleb1's verification test speakers


def test_voxceleb1_txt_alone(tmp_path):
    tree(tmp_path, "id10001/vid.mp4", "txt/id10001/vid/00007.txt")
    (tmp_path / "txt/id10001/vid/00007.txt").write_text(TXT)
    (source,) = voxceleb.sources(tmp_path, [], None)
    (stretch,) = source.stretches
    assert (stretch.id, stretch.start_s, stretch.end_s) == ("id10001_vid_00007", 4.0, 102 / 25)
    assert stretch.framing == FaceBoxes(47, 18, 345, 316, 268)


def test_voxceleb2_tree(tmp_path):
    tree(tmp_path, "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "test/mp4/id00017/x/00002.mp4", "flat.mp4")
    found = {s.id: s for s in voxceleb.sources(tmp_path, [], None)}
    assert found["id00012_21Uxsk56VDQ_00001"].split == "train" and found["id00017_x_00002"].split == "test"
    assert all(s.stretches[0].framing == WholePicture() for s in found.values())
    assert found["flat"].identity == "flat"


def test_a_wrong_list_names_its_line(tmp_path):
    tree(tmp_path, "a.mp4")
    (tmp_path / "m.csv").write_text(METADATA + "vid,50,149,0-0-64,25,128,72,,id1\n")
    with pytest.raises(DataError, match=r"m\.csv, line 2"):
        voxceleb.sources(tmp_path, [tmp_path / "m.csv"], None)
    (tmp_path / "00001.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no FRAME"):
        voxceleb.read_txt(tmp_path / "00001.txt")


def test_ids_are_safe_names():
    assert safe_id("id1", "a b/c#é") == "id1_a-b-c--"
