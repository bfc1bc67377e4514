"""evaluate.py itself on a small synthetic corpus and untrained networks: its files, resuming, ranks, others' videos."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

import evaluate
from datasets import provenance
from datasets.clips import load_manifest
from datasets.media.video_reader import frames_of
from datasets.media.video_writer import VideoWriter
from datasets.synthetic import make_corpus
from engine.checkpoint import Weights, save_weights
from evaluation.rows import ROWS
from tests.in_process import status_of

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
QUICK = ("split=train", "landmarks=false", "animation.device=cpu", "bootstrap.samples=50")


run = functools.partial(status_of, evaluate.main)


def results(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def numbers(output: Path) -> dict:
    """Row and clip -> metrics."""
    return {(row, clip["clip"]): clip["metrics"] for row, clips in results(output)["clips"].items() for clip in clips}


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_weights):
    """corpus/ with two training clips of two people (0.8 s, 64x64), model.safetensors, networks of two ablations."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_corpus(folder / "corpus", clips=4, seed=3, speakers=4, duration_s=0.8, size=64, workers=1)
    assert len({clip.row.identity for clip in load_manifest(folder / "corpus", "train")}) == 2
    save_weights(folder / "model.safetensors", small_weights(64))
    other = small_weights(64, seed=1)
    for name in ("head_motion_predictor", "motion_field_generator"):
        configs = {key: other.configs[key] for key in (name, "pose_range")}
        save_weights(folder / f"{name}.safetensors", Weights({name: other.states[name]}, configs))
    return folder


def ours(files: Path, output: Path, *overrides: str) -> list:
    """The usual arguments of the first form."""
    options = ["--checkpoint", files / "model.safetensors", "--data", files / "corpus", "--output", output]
    return [*options, *QUICK, *overrides]


@pytest.fixture(scope="module")
def whole(files):
    """Output of a run with nearly every row that was killed after its first clips and started again."""
    variants = [
        f"variants.{row}={files}/{network}.safetensors"
        for row, network in (
            ("l1", "head_motion_predictor"),
            ("one_stage", "motion_field_generator"),
        )
    ]
    arguments, output = ours(files, files / "whole", *variants), files / "whole"
    command = [sys.executable, "evaluate.py", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((output / "clips").rglob("*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in (output / "clips").rglob("*.json")}
    assert len(done) < 20 and not (output / "results.json").exists()
    assert run(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done  # not redone
    return output


def test_every_row_is_measured_and_what_cannot_be_is_named(files, whole):
    found = results(whole)
    assert list(found["rows"]) == ["truth", *(row for row in ROWS if row not in ("no-set", "no-jacobian"))]
    assert found["rows_not_computed"] == {
        "no-set": "needs variants.no_set=RUN of train_headpose.py",
        "no-jacobian": "needs variants.no_jacobian=RUN of train_motionfield.py",
    }
    assert found["protocol"] == "audio2head-evaluation/6" and found["identities"] == 2
    assert len(found["weights_sha256"][str(files / "model.safetensors")]) == 64
    assert found["config"]["split"] == "train" and found["commit"]
    rows = found["rows"]
    assert rows["full"]["missing"]["lpips"] == "needs alexnet-owt-7be5be79.pth (networks.lpips=FILE)"
    assert rows["truth"]["missing"]["lse_c"] == "needs syncnet_v2.model (networks.syncnet=FILE)"
    assert rows["full"]["missing"]["blink_rate"] == "needs landmarks=true and `make pose-tools`"
    for row in ("full", "l1", "one-stage", "still", "wrong-audio-generated", "other-keypoints"):
        numbers = rows[row]["numbers"]
        assert {"psnr", "ssim", "mouth_psnr", "mouth_ssim", "he", "ke", "pose_velocity"} <= numbers.keys(), row
        assert numbers["psnr"]["low"] <= numbers["psnr"]["mean"] <= numbers["psnr"]["high"]
    assert rows["gt-keypoint"]["numbers"]["psnr"]["mean"] > rows["other-keypoints"]["numbers"]["psnr"]["mean"]
    assert rows["still"]["numbers"]["diversity"]["mean"] == 0 < rows["truth"]["numbers"]["diversity"]["mean"]
    assert rows["gt-head"]["numbers"]["ke"]["mean"] != rows["full"]["numbers"]["ke"]["mean"]
    assert rows["l1"]["numbers"]["he"]["mean"] != rows["full"]["numbers"]["he"]["mean"]
    assert rows["one-stage"]["numbers"]["he"] == rows["full"]["numbers"]["he"]  # N_H is the same
    text = (whole / "results.md").read_text()
    assert "- no-set: not computed: needs variants.no_set=RUN" in text
    assert "| wrong-audio-generated |" in text and "LPIPS: not computed: needs alexnet-owt-7be5be79.pth" in text
    assert (whole / "plots" / "psnr.png").is_file()


def test_still_scores_are_those_of_the_first_frame(files, whole):
    for clip in load_manifest(files / "corpus", "train"):
        frames = clip.read_frames(range(clip.frames)).astype(float)
        error = ((frames[1:] - frames[:1]) ** 2).mean((1, 2, 3)) / 255**2
        assert numbers(whole)["still", clip.row.id]["psnr"] == pytest.approx((-10 * np.log10(error)).mean(), abs=1e-3)


def test_videos_are_marked_and_motion_is_kept(files, whole):
    clip = load_manifest(files / "corpus", "train")[0]
    video = whole / "videos" / "full" / f"{clip.row.id}.mp4"
    assert "trainedAlgorithmicMedia" in "\n".join(provenance.read_marks(video))
    assert len(list(frames_of(video))) == clip.frames
    assert not (whole / "videos" / "truth").exists() and not (whole / "videos" / "wrong-audio").exists()
    with np.load(whole / "motion" / "gt-head" / f"{clip.row.id}.npz") as motion:
        assert motion["head_pose"] == pytest.approx(clip.pose(), abs=1e-5)
        assert motion["position"].shape == (clip.frames, 10, 2) and motion["jacobian"].shape == (clip.frames, 10, 2, 2)


def test_the_full_row_is_what_inference_makes(files, whole, tmp_path):
    from animation.generate import Animator
    from animation.job import Job
    from animation.models import load_models
    from animation.options import AnimationOptions
    from datasets.media.image import write_png

    clip = load_manifest(files / "corpus", "train")[0]
    write_png(tmp_path / "face.png", clip.read_frames([0])[0])
    options = AnimationOptions(device="cpu", crop="none", size="native")
    animator = Animator(load_models([files / "model.safetensors"], options.chosen_device()), options)
    job = Job(tmp_path / "face.png", tmp_path / "out.mp4", clip.folder / "audio.wav", save_motion=tmp_path / "m.npz")
    animator.animate(job)
    made, kept = (np.stack(list(frames_of(p))) for p in (job.output, whole / "videos" / "full" / f"{clip.row.id}.mp4"))
    assert np.array_equal(made, kept)
    with np.load(tmp_path / "m.npz") as a, np.load(whole / "motion" / "full" / f"{clip.row.id}.npz") as b:
        assert np.array_equal(a["keypoints"], b["position"])
        assert np.array_equal(a["head_pose"], b["head_pose"])


def test_motion_scales_act_on_rows_made_from_sound_alone(files, whole, tmp_path):
    def scaled(setting: str) -> Path:
        assert run(*ours(files, tmp_path / setting, "rows=[full,gt-keypoint]", f"animation.{setting}")) == 0
        return tmp_path / setting

    def position(output: Path) -> np.ndarray:
        clip = load_manifest(files / "corpus", "train")[0]
        with np.load(output / "motion" / "full" / f"{clip.row.id}.npz") as motion:
            return motion["position"]

    steady, none, double = map(scaled, ("head_motion_scale=0", "expression_scale=0", "expression_scale=2"))
    assert results(steady)["rows"]["full"]["numbers"]["diversity"]["mean"] == 0
    assert results(whole)["rows"]["full"]["numbers"]["diversity"]["mean"] > 0
    assert np.abs(position(double) - position(none)).max() > 1e-4
    assert position(double) + position(none) == pytest.approx(2 * position(whole), abs=1e-5)
    for output in (steady, none, double):
        assert results(output)["rows"]["gt-keypoint"] == results(whole)["rows"]["gt-keypoint"]


SOME = "rows=[full,still,wrong-audio]"


def test_two_ranks_give_the_numbers_of_one_that_was_killed(files, whole, tmp_path):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "evaluate.py"]
    done = subprocess.run(
        [*start, *map(str, ours(files, tmp_path, SOME))], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# Results") == 1
    kept, found = results(whole), results(tmp_path)
    assert len(numbers(tmp_path)) == 8
    assert all(metrics == numbers(whole)[key] for key, metrics in numbers(tmp_path).items())
    assert found["rows"] == {row: kept["rows"][row] for row in ("truth", "full", "still", "wrong-audio")}


def test_results_of_other_weights_are_refused(files, whole, tmp_path, small_weights, capsys):
    for kind in ("clips", "motion"):
        shutil.copytree(whole / kind, tmp_path / kind)
    assert run(*ours(files, tmp_path, "rows=[still]")) == 0
    capsys.readouterr()
    save_weights(tmp_path / "other.safetensors", small_weights(64, seed=2))
    arguments = ours(files, tmp_path, "rows=[still]")
    arguments[1] = tmp_path / "other.safetensors"
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert "was made with another weights" in said and "choose another --output" in said and "Traceback" not in said


def test_mistakes_are_one_sentence(files, tmp_path, capsys):
    def said(*arguments: object) -> str:
        assert run(*arguments) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    assert "did you mean networks.syncnet?" in said(*ours(files, tmp_path, "networks.synchnet=x"))
    whole_file = f"variants.l1={files}/model.safetensors"
    assert "give a run of train_headpose.py, which holds head_motion_predictor alone" in said(
        *ours(files, tmp_path, whole_file)
    )
    assert "split is 'tests', wanted one of" in said(*ours(files, tmp_path, "split=tests"))
    assert "give --checkpoint and --data, or --generated and --reference" in said("--output", tmp_path)
    assert "is not a folder" in said(
        "--generated", tmp_path / "gone", "--reference", files / "corpus", "--output", tmp_path
    )


# ---- videos of another system


@pytest.fixture(scope="module")
def given(files):
    """generated/: the true frames of both clips, one larger and longer than its reference; a stem without one."""
    folder = files / "given"
    for number, clip in enumerate(load_manifest(files / "corpus", "train")):
        frames = clip.read_frames(range(clip.frames), 64 if number == 0 else 96)
        frames = np.concatenate([frames, frames[-1:].repeat(5 * number, 0)])
        (folder / "generated").mkdir(parents=True, exist_ok=True)
        (folder / "reference" / clip.row.identity).mkdir(parents=True)
        for path in (f"generated/{clip.row.id}.mp4", f"reference/{clip.row.identity}/{clip.row.id}.mp4"):
            kept = frames if path.startswith("generated") else clip.read_frames(range(clip.frames))
            with VideoWriter(folder / path, sound=clip.folder / "audio.wav", crf=1) as writer:
                writer.write(kept)
    shutil.copy(folder / "generated" / f"{clip.row.id}.mp4", folder / "generated" / "extra.mp4")
    return folder


def test_given_videos_against_a_prepared_corpus(files, given, tmp_path):
    arguments = ["--generated", given / "generated", "--reference", files / "corpus", "--output", tmp_path]
    assert run(*arguments, "--checkpoint", files / "model.safetensors", *QUICK) == 0
    found = results(tmp_path)
    assert list(found["rows"]) == ["truth", "generated", "still", "wrong-audio"]
    assert "1 generated videos have no reference: extra" in found["notes"]
    scored, still = found["rows"]["generated"]["numbers"], found["rows"]["still"]["numbers"]
    assert scored["psnr"]["mean"] > still["psnr"]["mean"] + 5 and scored["ke"]["mean"] < still["ke"]["mean"]
    assert found["rows"]["generated"]["missing"]["he"] == "needs landmarks=true and `make pose-tools`"
    clips = load_manifest(files / "corpus", "train")
    larger = found["clips"]["generated"][1]
    assert larger["frames"] == clips[1].frames
    assert larger["notes"] == [
        "scaled from 96x96 to 64x64",
        f"{clips[1].frames + 5} frames, the reference has {clips[1].frames}: the shorter counts",
    ]
    assert not (tmp_path / "videos" / "generated").exists()


def test_rows_clips_and_words_of_given_videos_are_those_that_were_asked_for(files, given, tmp_path, capsys):
    clip = load_manifest(files / "corpus", "train")[0].row
    words = tmp_path / "words" / clip.identity / f"{Path(clip.source).stem}.align"
    words.parent.mkdir(parents=True)
    words.write_text("0 10000 bin\n")
    arguments = ["--generated", given / "generated", "--reference", files / "corpus", "--output", tmp_path / "out"]
    arguments += [*QUICK, "rows=[still]", "max_clips=1"]
    assert run(*arguments, f"alignments={tmp_path / 'words'}") == 0
    found = results(tmp_path / "out")
    assert list(found["rows"]) == ["truth", "generated", "still"]
    (scored,) = found["clips"]["generated"]
    assert scored["clip"] == clip.id and "'bin'" in scored["made_with"]["clip"]
    capsys.readouterr()
    assert run(*arguments, "animation.still=true") == 2
    assert "animation.still: --generated only measures videos" in capsys.readouterr().err


def test_given_videos_against_videos(files, given, tmp_path, capsys):
    arguments = ["--generated", given / "generated", "--reference", given / "reference", "--output", tmp_path]
    assert run(*arguments, *QUICK[1:]) == 0
    found = results(tmp_path)
    assert found["identities"] == 2 and found["rows"]["generated"]["numbers"]["psnr"]["mean"] > 25
    assert found["rows"]["generated"]["missing"]["ke"] == "needs --checkpoint with N_D"
    assert found["rows"]["generated"]["missing"]["mouth_psnr"] == "the true mouth's place is not known"
    stem = found["clips"]["generated"][0]["clip"]
    (video,) = (path for path in (given / "reference").rglob("*.mp4") if path.stem == stem)
    frames = np.stack(list(frames_of(video)))
    (tmp_path / "wide").mkdir()
    with VideoWriter(tmp_path / "wide" / f"{stem}.mp4") as writer:
        writer.write(frames[:, :40])
    wide = ["--generated", tmp_path / "wide", "--reference", given / "reference", "--output", tmp_path / "out"]
    assert run(*wide, *QUICK[1:]) == 2
    assert "is 64x40, its reference 64x64: crop both alike" in capsys.readouterr().err


def test_options_that_the_weights_carry_count_until_others_are_asked_for(files, tmp_path, small_weights, capsys):
    weights = small_weights(64)
    weights.configs["animation"] = {"head_return": 3.0, "keypoint_mode": "relative"}
    save_weights(tmp_path / "carrying.safetensors", weights)

    def options(*overrides: str) -> dict:
        arguments = ["--checkpoint", tmp_path / "carrying.safetensors", "--data", files / "corpus"]
        output = tmp_path / str(len(overrides))
        assert run(*arguments, "--output", output, *QUICK, "rows=[still]", "max_clips=1", *overrides) == 0
        return results(output)["config"]["animation"]

    found = options()
    assert (found["head_return"], found["keypoint_mode"], found["expression_scale"]) == (3.0, "relative", 1.0)
    assert options("animation.head_return=0.5")["head_return"] == 0.5
    weights.configs["animation"] = {"crf": 3}
    save_weights(tmp_path / "carrying.safetensors", weights)
    arguments = ["--checkpoint", tmp_path / "carrying.safetensors", "--data", files / "corpus"]
    assert run(*arguments, "--output", tmp_path / "refused", *QUICK) == 2
    assert "carrying.safetensors carries the animation option 'crf'" in capsys.readouterr().err


def test_videos_can_be_scored_at_another_size(files):
    """Full-size frames, held against larger true ones; the networks see the same as ever."""
    output = files / "larger"
    assert run(*ours(files, output, "animation.size=96", "rows=[gt-keypoint, still]", "max_clips=1")) == 0
    found = results(output)
    assert "96x96" in found["data"]
    (video,) = (output / "videos" / "gt-keypoint").glob("*.mp4")
    with av.open(str(video)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 96)
    assert 10 < found["rows"]["gt-keypoint"]["numbers"]["psnr"]["mean"] < 100
    assert run(*ours(files, output, "animation.face=1")) == 2  # nothing looks for faces here
