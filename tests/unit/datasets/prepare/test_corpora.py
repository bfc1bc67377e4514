"""The corpus adapters: names, lists, splits."""

import os
from pathlib import Path

import pytest

from datasets.errors import DataError
from datasets.prepare.corpora import grid, lrw, videos, voxceleb
from datasets.prepare.sources import FaceBoxes, FaceTracks, HeadBox, OneFace, Source, WholePicture, safe_id

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
    assert second.stretches[0].framing == FaceTracks() and second.split == "test"  # in no list, but of the same person


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


def fomm_list(root: Path, *people: tuple[str, str]) -> list[Source]:
    """VoxCeleb in FOMM's form, a clip for each (person, partition) of its list."""
    rows = []
    for n, (person, partition) in enumerate(people):
        tree(root, f"v{n}#00001#0-99.mp4")
        rows.append(f"v{n},0,99,0-0-64-72,25,128,72,{partition},{person}\n")
    (root / "vox-metadata.csv").write_text(METADATA + "".join(rows))
    return voxceleb.sources(root, [], None)


def splits(sources: list[Source]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for source in sources:
        found.setdefault(source.identity, set()).add(source.split)
    return found


def test_a_list_without_val_gives_training_people_to_validate_with(tmp_path):
    people = [(f"id1{n:04d}", "train") for n in range(400)] + [(f"id102{n}", "test") for n in range(70, 90)]
    found = splits(fomm_list(tmp_path, *people))
    val = {person for person, split in found.items() if split == {"val"}}
    assert 10 <= len(val) <= 30 and val <= {person for person, _ in people[:400]}
    assert all(found[person] == {"test"} for person, _ in people[400:])
    # Whoever else is there, a person keeps the split; of a handful one validates.
    fewer = splits(fomm_list(tmp_path / "half", *people[:200]))
    assert all(found[person] == split for person, split in fewer.items())
    handful = [split for (split,) in splits(fomm_list(tmp_path / "few", *people[:3])).values()]
    assert sorted(handful) == ["train", "train", "val"]


def test_a_list_with_val_is_followed(tmp_path):
    people = [(f"id1{n:04d}", "train") for n in range(60)] + [("id19999", "val")]
    found = splits(fomm_list(tmp_path, *people))
    assert [person for person, split in found.items() if split == {"val"}] == ["id19999"]


def test_who_is_in_both_partitions_counts_as_test(tmp_path):
    people = [
        ("id10306", "train"),
        ("id10306", "test"),
        ("id10001", "train"),
        ("id10002", "train"),
        ("id10306", "train"),
    ]
    found = splits(fomm_list(tmp_path, *people))
    assert found["id10306"] == {"test"} and {"train"} in found.values()


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
    assert safe_id("id1", "a b/c#é") == "id1_a-b-c-é"
    long = [safe_id("字" * 200 + end) for end in "ab"]
    assert len(set(long)) == 2 and all(len(id.encode()) < 200 for id in long)


NAMES = [
    "张三",
    "李四",
    "Иван",
    "Мария",
    "محمد",
    "राम",
    "राज",
    "Zoë",
    "Zoé",
    "日本-1",
    "日本 1",
    "A B",
    "A-B",
    "😀",
    "😃",
    "--",
]


def test_people_and_files_in_any_script_stay_apart(tmp_path):
    tree(tmp_path, *(f"{name}/talk.mp4" for name in NAMES), *(f"same/{name}.mp4" for name in NAMES))
    found = videos.sources(tmp_path)
    assert {source.identity for source in found} == {*NAMES, "same"}
    assert len({source.id for source in found}) == 2 * len(NAMES)
    assert next(source.id for source in found if source.identity == "राम") == "राम_talk"
    assert all("/" not in source.id and not source.id.startswith(".") for source in found)


def test_accents_in_either_form_are_one_person(tmp_path):
    tree(tmp_path, "Zoe\u0301/a.mp4", "Zo\u00e9/b.mp4")
    assert {source.identity for source in videos.sources(tmp_path)} == {"Zo\u00e9"}


@pytest.mark.parametrize("adapter", ["voxceleb", "videos"])
def test_fomm_names_without_a_list_name_the_person_and_folders_the_split(tmp_path, adapter):
    tree(
        tmp_path,
        "train/id10001#7gWzIy6yIIk#002213#002910.mp4",
        "train/id10001#7gWzIy6yIIk#003000#003100.mp4",
        "train/id10002#a#b#000001#000099.mp4",
        "test/id10280#NXjT3732Ekg#001093#001192.mp4",
        "val/id10300#x_#1#90.mp4",
    )
    found = voxceleb.sources(tmp_path, [], None) if adapter == "voxceleb" else videos.sources(tmp_path)
    assert sorted((s.identity, s.split) for s in found) == [
        ("id10001", "train"),
        ("id10001", "train"),
        ("id10002", "train"),
        ("id10280", "test"),
        ("id10300", "val"),
    ]
    assert len({s.id for s in found}) == 5
    if adapter == "voxceleb":
        assert all(s.stretches[0].framing == WholePicture() for s in found)


def test_folders_of_splits_are_no_people(tmp_path):
    tree(tmp_path, "train/ann/a.mp4", "train/bob.mp4", "test/eve/deep/c.mp4")
    found = {(s.identity, s.split) for s in videos.sources(tmp_path)}
    assert found == {("ann", "train"), ("bob", "train"), ("eve", "test")}
