"""Checks, whole-or-nothing writing, digests and .npz files."""

import hashlib
import os
import socket
import stat
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
    read_npz,
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
