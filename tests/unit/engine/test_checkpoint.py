"""Weights files: round trip, atomic writing, strict filling, and refusal of what must not be loaded."""

import os

import pytest
import torch
from torch import nn

from engine.checkpoint import (
    CheckpointError,
    Weights,
    atomic_path,
    load_strict,
    load_torch_file,
    load_weights,
    save_weights,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_weights_read_back_equal_with_their_configuration(tmp_path):
    state = network().to(memory_format=torch.channels_last).state_dict()
    save_weights(tmp_path / "ö w.safetensors", Weights({"a": state}, {"a": {"width": 3}}))
    read = load_weights(tmp_path / "ö w.safetensors")
    assert read.configs == {"a": {"width": 3}}
    assert all(torch.equal(read.states["a"][key], value) for key, value in state.items())


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "w.bin"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["w.bin"]


def test_links_are_written_through_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "big").mkdir()
    link, real = tmp_path / "w.safetensors", tmp_path / "big" / "real.safetensors"
    link.symlink_to("big/real.safetensors")  # leads nowhere yet
    for value in (1.0, 2.0):
        save_weights(link, Weights({"a": {"b": torch.tensor(value)}}))
        assert link.is_symlink() and load_weights(real).states["a"]["b"] == value
    assert os.listdir(real.parent) == [real.name]

    (tmp_path / "round").symlink_to("round")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {"big": "is a folder", "pipe": "is a device or a pipe", "round": "in a circle"}.items():
        with pytest.raises(CheckpointError, match=f"{name} .*{words}"), atomic_path(tmp_path / name):
            pass
    assert sorted(os.listdir(tmp_path)) == ["big", "pipe", "round", "w.safetensors"]
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "round").is_symlink()


def test_strict_filling_names_every_kind_of_misfit():
    state = network().state_dict()
    state["extra"] = state.pop("0.bias")
    state["1.weight"] = torch.ones(3)
    with pytest.raises(CheckpointError) as caught:
        load_strict(network(), state, "file.pth")
    message = str(caught.value)
    assert "file.pth" in message and "missing 0.bias" in message and "unexpected extra" in message
    assert "1.weight (3,) instead of (2,)" in message


def test_batch_norm_counters_may_be_absent_or_one_element():
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    state["0.bias"] = torch.tensor([5.0, 6.0])
    target = network()
    load_strict(target, state, "file")
    assert target[0].bias.tolist() == [5.0, 6.0]
    state["1.num_batches_tracked"] = torch.tensor([7])
    load_strict(target, state, "file")
    assert target[1].num_batches_tracked == 7


class Evil:
    def __reduce__(self):
        return (os.system, ("touch hacked",))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "pickle", "folder", "tensor"])
def test_unusable_torch_files_end_in_one_sentence(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pth.tar"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("<html>quota exceeded</html>")
    elif kind == "truncated":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "pickle":
        torch.save({"a": Evil()}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError) as caught:
        load_torch_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "foreign"])
def test_unusable_safetensors_end_in_one_sentence(tmp_path, kind):
    path = tmp_path / "w.safetensors"
    if kind == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(3)}, path)
    elif kind == "truncated":
        save_weights(path, Weights({"a": network().state_dict()}))
        path.write_bytes(path.read_bytes()[:-20])
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "hello")
    with pytest.raises(CheckpointError) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
