"""Checks, whole-or-nothing writing, digests and .npz files."""

import hashlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import files
from datasets.errors import DataError
from datasets.files import (
    file_digest,
    folder_written_beside,
    make_folder,
    output_file,
    read_array,
    read_json,
    read_npz,
    read_table,
    write_atomically,
    written_beside,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_file_is_whole_or_as_it_was(tmp_path, error):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    with pytest.raises(error), written_beside(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise error
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_is_whole_or_not_there(tmp_path, error):
    with pytest.raises(error), folder_written_beside(tmp_path / "clip") as temporary:
        (temporary / "a").write_text("half")
        raise error
    assert names(tmp_path) == []
    with folder_written_beside(tmp_path / "clip") as temporary:
        (temporary / "a").write_text("whole")
        assert not (tmp_path / "clip").exists()
    assert names(tmp_path) == ["clip"] and (tmp_path / "clip" / "a").read_text() == "whole"


def test_the_folder_of_whom_was_first_stays(tmp_path):
    with folder_written_beside(tmp_path / "clip") as temporary:
        (temporary / "a").write_text("second")
        (tmp_path / "clip").mkdir()
        (tmp_path / "clip" / "a").write_text("first")
    assert names(tmp_path) == ["clip"] and (tmp_path / "clip" / "a").read_text() == "first"


def test_others_may_read_what_is_written(tmp_path):
    """Temporary files and folders are private; what comes of them is not."""
    old = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a.bin", b"")
        with folder_written_beside(tmp_path / "clip"):
            pass
    finally:
        os.umask(old)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.bin", "clip")] == [0o644, 0o755]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from datasets.clips import write_table
from datasets.errors import DiskFullError
from datasets.files import folder_written_beside, written_beside
from datasets.media.image import write_png
from evaluation.store import ClipResult, Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # writing more fails, as on a full disk
folder, noise = Path(sys.argv[1]), np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)
def arrays(path):
    with written_beside(path) as temporary, temporary.open("wb") as file:
        np.savez(file, noise=noise)
def clip(path):
    with folder_written_beside(path) as partial:
        np.save(partial / "pose.npy", noise)
ways = {
    "manifest.csv": lambda path: write_table(path, ["id"], ({"id": "a" * 99} for _ in range(99))),
    "motion.npz": arrays,
    "frame.png": lambda path: write_png(path, noise),
    "clips/r/a.json": lambda path: Store(folder).write("r", ClipResult("a", "i", 1, {}, {}, ["n" * 9999], {})),
    "clip": clip,
}
for name, way in ways.items():
    try:
        way(folder / name)
    except DiskFullError as error:
        print(f"{name}: {error}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_on_a_full_disk_everything_is_as_it_was_and_the_sentence_says_so(tmp_path):
    """The manifest, a motion, a frame, the results of an evaluation, a clip."""
    (tmp_path / "manifest.csv").write_text("old")
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, cwd=root)
    said = done.stdout.splitlines()
    assert len(said) == 5 and all("no space left" in line for line in said), done.stdout + done.stderr
    assert (tmp_path / "manifest.csv").read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["manifest.csv"]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    abandoned = tmp_path / ".a.part.bin"
    abandoned.write_bytes(b"half of something longer")
    with written_beside(tmp_path / "a.bin") as one:
        assert one == abandoned and one.read_bytes() == b""
        with written_beside(tmp_path / "a.bin") as other:  # a second writer at the same time has its own
            assert other != one
            other.write_bytes(b"second")
        one.write_bytes(b"first")
    assert names(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"first"


def test_a_temporary_name_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / ".a.part.bin").symlink_to(tmp_path / "precious")
    os.link(tmp_path / "precious", tmp_path / ".b.part.bin")
    for name in ("a.bin", "b.bin"):
        write_atomically(tmp_path / name, b"new")
    assert (tmp_path / "precious").read_bytes() == b"old"


def test_tables_json_and_arrays_refuse_damage_in_one_sentence(tmp_path):
    contents = {
        "a.csv": (b"a,b\n1,2,3\n", "line 2: more values"),
        "b.csv": (b"a,a\n1,2\n", "column 'a' twice"),
        "c.csv": (b"\xff\xfe\x00", "not a CSV file in UTF-8"),
        "d.csv": (b"a,b\n1,2\0\n", "zero byte"),
        "a.json": (b'{"a": 1', "not readable as JSON"),
        "b.json": (b"[" * 100_000, "not readable as JSON"),
        "c.json": (b"[1]", "holds a list"),
        "a.npy": (b"\x93NUMPY", "not a readable .npy"),
    }
    read = {".csv": read_table, ".json": read_json, ".npy": read_array}
    for name, (content, words) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            read[Path(name).suffix](tmp_path / name, "test")
    np.save(tmp_path / "huge.npy", np.zeros(3, np.float32))
    header = (tmp_path / "huge.npy").read_bytes().replace(b"(3,), }", b"(99999999999,), }")
    (tmp_path / "huge.npy").write_bytes(header)
    np.save(tmp_path / "objects.npy", np.array([{}]))
    for name in ("huge.npy", "objects.npy"):
        with pytest.raises(DataError, match="not a readable"):
            read_array(tmp_path / name, "test")


def test_targets_that_cannot_be_written(tmp_path):
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "no" / "a", "does not exist")):
        with pytest.raises(DataError, match=words):
            write_atomically(path, b"")


def test_the_digest_is_sha_256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_npz_files_hold_finite_numbers(tmp_path):
    np.savez(tmp_path / "good.npz", a=np.arange(3))
    assert read_npz(tmp_path / "good.npz", "motion")["a"].dtype == np.float32
    np.savez(tmp_path / "nan.npz", a=[np.nan])
    np.savez(tmp_path / "objects.npz", a=np.array([{}]))
    np.save(tmp_path / "single.npy", np.arange(3))
    (tmp_path / "text.npz").write_text("text")
    wrong = {
        "nan.npz": "not finite",
        "objects.npz": "not a readable",
        "single.npy": "single array",
        "text.npz": "readable",
    }
    for name, words in wrong.items():
        with pytest.raises(DataError, match=words):
            read_npz(tmp_path / name, "motion")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "real").write_bytes(b"old")
    for name, target in (("there", "store/real"), ("not yet", "store/new")):
        (tmp_path / name).symlink_to(tmp_path / target)
        write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).is_symlink() and (tmp_path / target).read_bytes() == b"new"
    assert names(tmp_path / "store") == ["new", "real"]


def unwritable(folder):
    """what is wrong -> (output, inputs, words of the message)"""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "file").write_bytes(b"mine")
    (folder / "circle").symlink_to(folder / "circle2")
    (folder / "circle2").symlink_to(folder / "circle")
    (folder / "to pipe").symlink_to(folder / "pipe")
    (folder / "to file").symlink_to(folder / "file")
    os.link(folder / "file", folder / "hard")
    connection = socket.socket(socket.AF_UNIX)
    connection.bind(str(folder / "socket"))
    connection.close()
    file = folder / "file"
    return {
        "folder": (folder / "folder", [], "is a folder"),
        "pipe": (folder / "pipe", [], "is a device or a pipe"),
        "link to a pipe": (folder / "to pipe", [], "is a device or a pipe"),
        "socket": (folder / "socket", [], "is a device or a pipe"),
        "circle": (folder / "circle", [], "cannot be written"),
        "below a file": (file / "a" / "b", [], "is a file, not a folder"),
        "an input": (file, [None, file], "name another output"),
        "an input otherwise spelled": (folder / "folder" / ".." / "file", [file], "name another output"),
        "an input by a link": (folder / "to file", [file], "name another output"),
        "an input by a hard link": (folder / "hard", [file], "name another output"),
        "an output not there yet": (folder / "new", [folder / "folder" / ".." / "new"], "name another output"),
    }


def test_what_must_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, (path, inputs, words) in unwritable(Path()).items():
        with pytest.raises(DataError, match=words):
            output_file(path, inputs)
            pytest.fail(what)
        if not inputs:
            with pytest.raises(DataError, match=words):
                write_atomically(path, b"lost")
                pytest.fail(what)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert output_file(tmp_path / "a", [tmp_path / "file"]) == (tmp_path / "a").resolve()
    with pytest.raises(DataError, match="is a file, not a folder"):
        make_folder(tmp_path / "file" / "below")
    assert make_folder(tmp_path / "x" / "y").is_dir()


def test_an_npz_that_unpacks_to_too_much_is_refused_before(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(100_000))
    monkeypatch.setattr(files, "NPZ_BYTES", 10_000)
    with pytest.raises(DataError, match="unpacks to"):
        read_npz(tmp_path / "bomb.npz", "motion")
