"""datasets.prepare as a user runs it, on small videos made here. Poses come from CSV files: no estimator is needed."""

import csv
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from datasets import inspect
from datasets.audio import features
from datasets.clips import load_manifest, load_pose_range, read_rows, verify, write_rows
from datasets.face.mesh import available
from datasets.media.sound import write_wav
from datasets.media.video_reader import frames_of
from datasets.pose import FOCAL_LENGTH
from datasets.prepare.clip import Options
from datasets.prepare.corpus import outcomes
from datasets.prepare.sources import Source, Stretch, WholePicture
from tests.extra_data import EXTRA_DATA

ROOT = Path(__file__).parents[2]
GRID = EXTRA_DATA / "data" / "grid"
FLASH_S = 0.8
CSV_HEADER = "frame,face_id,timestamp,confidence,success,pose_Tx,pose_Ty,pose_Tz,pose_Rx,pose_Ry,pose_Rz"


def make_video(
    path: Path,
    fps: float | None = 25,
    seconds: float = 1.6,
    sound: str = "click",
    seed: int = 0,
    flash_s: float = FLASH_S,
) -> None:
    """A grey noise video with one white frame, and noise with one click at the same moment. fps None: changing rate."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    step = 1 / (fps or 30)
    times = np.arange(0, seconds - 1e-9, step)
    if fps is None:  # every third frame is missing in the second half
        times = np.array([t for n, t in enumerate(times) if t < seconds / 2 or n % 3])
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=Fraction(30 if fps is None else fps).limit_denominator(1001))
        video.width = video.height = 96
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, 90000)
        audio = None if sound == "none" else file.add_stream("aac", rate=44100, layout="mono")
        flash = int(np.argmin(np.abs(times - flash_s)))
        for number, time_s in enumerate(times):
            picture = random.integers(60, 100, (96, 96, 3), np.uint8)
            picture[:] = 255 if number == flash else picture
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90000), Fraction(1, 90000)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if audio is not None:
            wave = np.zeros(round(seconds * 44100), np.float32)
            if sound == "click":
                wave += random.normal(0, 0.01, len(wave)).astype(np.float32)
                start = round(times[flash] * 44100)
                wave[start : start + 200] = 0.9 * np.sin(np.arange(200))
            for start in range(0, len(wave), 1024):
                block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 44100, start, Fraction(1, 44100)
                file.mux(audio.encode(block))
            file.mux(audio.encode())


def make_csv(folder: Path, name: str, seconds: float = 3.0, failed: range = range(0)) -> None:
    """Poses of a swaying head 15 times a second, in OpenFace's camera of a 96x96 video."""
    folder.mkdir(exist_ok=True)
    lines = [CSV_HEADER]
    for n in range(round(seconds * 15)):
        sway = np.sin(n / 5)
        values = [10 * sway, 5, 300, 0.02, 0.1 * sway, -0.03]
        lines.append(f"{n + 1},0,{n / 15:.3f},0.95,{int(n not in failed)}," + ",".join(f"{v:.4f}" for v in values))
    (folder / f"{name}.csv").write_text("\n".join(lines))


def command(raw: Path, output: Path, *more: str, corpus: str = "lrw") -> list[str]:
    poses = ["--pose", "openface-csv", "--openface-csv", str(raw.parent / "poses")]
    paths = ["--input", str(raw), "--output", str(output)]
    return [sys.executable, "-m", "datasets.prepare", corpus, *paths, *poses, "--size", "64", *more]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, **options), cwd=ROOT, capture_output=True, text=True)


def files_of(output: Path) -> dict[str, bytes]:
    """Every byte that training reads, by name."""
    names = [
        path for path in output.rglob("*") if path.is_file() and "journal" not in path.parts and path.name != ".lock"
    ]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in names}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Six good videos of all kinds of rates, as an LRW tree."""
    raw = tmp_path_factory.mktemp("corpus") / "raw"
    for number, fps in enumerate([24, 30000 / 1001, 60, 15, 50, None], start=1):
        split = ("train", "train", "val", "test")[number % 4]
        make_video(raw / f"WORD/{split}/WORD_{number:05d}.mp4", fps, seed=number)
        make_csv(raw.parent / "poses", f"WORD_{number:05d}")
    return raw


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "out"
    done = run(raw, output, "--workers", "2")
    assert done.returncode == 0, done.stderr
    return output


def test_flash_and_click_stay_together(prepared):
    """From 24, 29.97, 60, 15, 50 fps and a changing rate: both within one frame of each other and of their time."""
    clips = load_manifest(prepared)
    assert len(clips) == 6
    for clip in clips:
        brightness = clip.read_frames(range(clip.frames)).mean(axis=(1, 2, 3))
        flash_s = float(np.mean(np.flatnonzero(brightness > 200))) / 25
        click_s = np.argmax(np.abs(clip.pcm().astype(int))) / 16000
        assert abs(flash_s - click_s) <= 0.04, (clip.row.id, flash_s, click_s)
        assert abs(click_s - FLASH_S) <= 0.04


def test_clips_are_complete(prepared):
    for clip in load_manifest(prepared):
        assert list(verify(clip)) == []
        assert clip.row.size == 64 and clip.frames in (40, 41)  # 1.6 s, up to the last frame's end
        np.testing.assert_array_equal(features(clip.pcm())[: clip.frames], clip.features())
        assert clip.row.pose_source == "openface-csv" and clip.row.pose_success == 1.0
        pose, time_s = clip.pose(), np.arange(clip.frames) / 25
        assert np.corrcoef(pose[:, 4 - 3], np.sin(time_s * 3))[0, 1] > 0.99  # 15 rows a second -> 25
        focal = 96 * (500 / 640 + 500 / 480) / 2
        np.testing.assert_allclose(pose[:, 5], 300 * FOCAL_LENGTH / (focal * 256 / 96), rtol=1e-3)
    assert load_pose_range(prepared).minimum[5] < 300 < load_pose_range(prepared).maximum[5]


def test_workers_and_shards_do_not_change_the_result(raw, prepared, tmp_path):
    """One shard is named by --shard, the other by torchrun's environment."""
    output = tmp_path / "out"
    assert run(raw, output, "--workers", "1", "--shard", "1/2").returncode == 0
    assert len(read_rows(output / "manifest.csv")) == 3
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    subprocess.run(command(raw, output, "--workers", "1"), cwd=ROOT, check=True, env=environment)
    assert files_of(output) == files_of(prepared)


def test_a_killed_run_continues(raw, prepared, tmp_path):
    output = tmp_path / "out"
    process = subprocess.Popen(
        command(raw, output, "--workers", "1"), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    )
    limit = time.monotonic() + 60
    while time.monotonic() < limit and len(list((output / "clips").glob("[!.]*"))) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in (output / "clips").glob("[!.]*")}
    assert 2 <= len(finished) < 6
    (output / "journal" / "0000-of-0001.jsonl").open("a").write('\n{"source": "half a li')
    assert run(raw, output, "--workers", "1").returncode == 0
    for name, modified in finished.items():
        assert (output / "clips" / name).stat().st_mtime_ns == modified, f"{name} was made again"
    assert files_of(output) == files_of(prepared)  # and no half clip is left


def test_without_its_journal_a_corpus_is_looked_through_again(raw, prepared, tmp_path):
    """How rejected files are tried once more: what exists is kept, what was missing is made."""
    output = tmp_path / "out"
    shutil.copytree(prepared, output)
    shutil.rmtree(output / "journal")
    shutil.rmtree(output / "clips" / "train_WORD_00001")
    kept = output / "clips" / "train_WORD_00004" / "frames.zip"
    modified = kept.stat().st_mtime_ns
    assert run(raw, output, "--workers", "1").returncode == 0
    assert files_of(output) == files_of(prepared) and kept.stat().st_mtime_ns == modified


def test_bad_files_end_in_the_report(tmp_path):
    raw = tmp_path / "raw"
    folder = raw / "WORD/train"
    make_video(folder / "good.mp4")
    make_video(folder / "truncated.mp4", seconds=4)
    content = (folder / "truncated.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(content[: len(content) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video " * 100)
    make_video(folder / "no_sound.mp4", sound="none")
    make_video(folder / "silent.mp4", sound="silent")
    make_video(folder / "short.mp4", seconds=0.9)
    make_video(folder / "no_pose.mp4")
    make_video(folder / "lost_face.mp4")
    make_video(folder / "blinked.mp4")
    for name in ("good", "truncated", "empty", "text", "no_sound", "silent", "short"):
        make_csv(tmp_path / "poses", name)
    make_csv(tmp_path / "poses", "lost_face", failed=range(5, 18))
    make_csv(tmp_path / "poses", "blinked", failed=range(10, 12))
    done = run(raw, tmp_path / "out", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert [clip.row.id for clip in load_manifest(tmp_path / "out")] == ["train_blinked", "train_good"]
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        reasons = {row["id"].removeprefix("train_"): row["reason"] for row in csv.DictReader(file)}
    expected = {
        "truncated": "",  # whatever the decoder says
        "empty": "empty",
        "text": "cannot be read",
        "no_sound": "no sound track",
        "silent": "silent",
        "short": "too short",
        "no_pose": "no no_pose.csv",
        "lost_face": "no head pose",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name], (name, reasons[name])
        assert "Traceback" not in reasons[name] and "\n" not in reasons[name]
    blinked = load_manifest(tmp_path / "out")[0]
    assert 0.8 < blinked.row.pose_success < 1 and np.isfinite(blinked.pose()).all()


class Deadly(Source):
    """Kills the process that unpickles it, as a crashing decoder or a full memory would."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_source_that_kills_its_worker_is_left_out(raw, tmp_path):
    stretches = [(Stretch(f"c{number}", WholePicture()),) for number in range(3)]
    path = raw / "WORD/train/WORD_00001.mp4"
    sources = [Source(path, "a", "train", stretches[0]), Deadly(path, "a", "train", stretches[1])]
    sources.append(Source(path, "a", "train", stretches[2]))
    options = Options(size=64, min_frames=29, pose="openface-csv", openface_csv=str(raw.parent / "poses"))
    found = {outcome.source: outcome for outcome in outcomes(sources, raw, tmp_path, options, workers=2)}
    assert len(found["c0"].rows) == len(found["c2"].rows) == 1
    assert "worker process died" in found["c1"].rejected[0][1]


def test_a_mute_video_takes_the_sound_beside_it(tmp_path):
    video = tmp_path / "raw/WORD/val/mute.mp4"
    make_video(video, sound="none")
    make_csv(tmp_path / "poses", "mute")
    pcm = (np.random.default_rng(0).normal(0, 2000, 16000 * 2)).astype(np.int16)
    write_wav(video.with_suffix(".wav"), pcm)
    assert run(tmp_path / "raw", tmp_path / "out").returncode == 0
    (clip,) = load_manifest(tmp_path / "out")
    np.testing.assert_array_equal(clip.pcm(), pcm[: 40 * 640 + 81])


def test_openface_itself_is_run_on_the_crops(tmp_path):
    """A stand-in for FeatureExtraction, called as OpenFace is and answering with its CSV."""
    make_video(tmp_path / "raw/WORD/val/one.mp4")
    program = tmp_path / "FeatureExtraction"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "assert abs(float(sys.argv[sys.argv.index('-fx') + 1]) - 233.333) < 1e-6 and '-pose' in sys.argv\n"
        "folder, out = (sys.argv[sys.argv.index(n) + 1] for n in ('-fdir', '-out_dir'))\n"
        "count = len(list(pathlib.Path(folder).iterdir()))\n"
        f"lines = ['{CSV_HEADER.replace(',', ', ')}']\n"
        "lines += [f'{n + 1}, 0, 0.000, 0.9, {int(n != 7)}, {n}, 2, 300, 0.1, 0.2, 0.3' for n in range(count)]\n"
        "pathlib.Path(out, pathlib.Path(folder).name + '.csv').write_text('\\n'.join(lines))\n"
    )
    program.chmod(0o755)
    done = run(tmp_path / "raw", tmp_path / "out", "--pose", "openface", "--openface-program", str(program))
    assert done.returncode == 0, done.stderr
    (clip,) = load_manifest(tmp_path / "out")
    assert clip.row.pose_source == "openface" and clip.row.pose_success == round(39 / 40, 4)
    np.testing.assert_allclose(clip.pose()[5:35, 3], np.arange(5, 35), atol=1e-3)  # the failed frame 7 is filled
    np.testing.assert_allclose(clip.pose()[:, [0, 1, 2, 4, 5]], [[0.1, 0.2, 0.3, 2, 300]] * 40, atol=1e-5)


def test_the_listed_offset_moves_the_sound(tmp_path):
    """Offset -5: the sound lies five frames later in the file, so the clip has the click five frames earlier."""
    raw = tmp_path / "raw"
    make_video(raw / "id10001/vid/vid#00001#100-140.mp4", seconds=2.0)
    make_csv(tmp_path / "poses", "vid#00001#100-140")
    header = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
    (raw / "vox-metadata.csv").write_text(header + "vid,100,140,0-0-96-96,25,96,96,train,id10001\n")
    txt = raw / "txt/id10001/vid/00001.txt"
    txt.parent.mkdir(parents=True)
    txt.write_text("Identity : id10001\nOffset : -5\n\nFRAME X Y W H\n000100 0 0 96 96\n")
    done = run(raw, tmp_path / "out", "--min-frames", "30", corpus="voxceleb")
    (clip,) = load_manifest(tmp_path / "out")
    assert clip.row.offset_s == 0.2 and done.returncode == 0
    assert clip.frames == 47  # 50 less 5 whose sound lies beyond the end, plus the 2 that may lack sound
    click_s = np.argmax(np.abs(clip.pcm().astype(int))) / 16000
    assert abs(click_s - (FLASH_S - 0.2)) < 0.02
    brightness = clip.read_frames(range(clip.frames)).mean(axis=(1, 2, 3))
    assert np.argmax(brightness) == FLASH_S * 25


@pytest.mark.parametrize("fps", [25, 30])
def test_a_list_cuts_stretches_out_of_a_whole_video(tmp_path, fps):
    """The second stretch starts 12 s into the file: found by seeking, still in step."""
    make_video(tmp_path / "raw/id10002/vid.mp4", fps, seconds=15, flash_s=12 + FLASH_S)
    make_csv(tmp_path / "poses", "vid", seconds=16)
    rows = ["video_id,start,end,bbox,fps,width,height,partition,person_id"]
    rows += [f"vid,{start * fps},{start * fps + 2 * fps - 1},0-0-96-96,{fps},96,96,train,id10002" for start in (1, 12)]
    (tmp_path / "raw/vox-metadata.csv").write_text("\n".join(rows))
    done = run(tmp_path / "raw", tmp_path / "out", "--min-frames", "30", corpus="voxceleb")
    assert done.returncode == 0, done.stderr
    early, late = load_manifest(tmp_path / "out")
    assert (early.frames, late.frames) == (50, 50) and late.row.start_s == 12.0
    click_s = np.argmax(np.abs(late.pcm().astype(int))) / 16000
    brightness = late.read_frames(range(50)).mean(axis=(1, 2, 3))
    assert abs(click_s - FLASH_S) < 0.04 and abs(np.argmax(brightness) / 25 - FLASH_S) <= 0.04
    assert np.abs(early.pcm().astype(int)).max() < 5000
    np.testing.assert_allclose(late.pose()[10, 1], 0.1 * np.sin(12.4 * 3), atol=0.02)


def test_other_options_need_another_folder(raw, prepared):
    done = run(raw, prepared, "--margin", "2")
    assert done.returncode == 2 and "begun with margin = 1.85" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shard", "2/2"], "--shard is '2/2'"),
        (["--val-identities", "nobody"], "nobody is no identity"),
        (["--pose", "openface", "--openface-program", "/no/such"], "not found"),
    ],
)
def test_wrong_options_are_one_line(raw, tmp_path, more, words):
    done = run(raw, tmp_path / "out", *more)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_empty_folder_says_so(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "poses").mkdir()
    done = run(tmp_path / "raw", tmp_path / "out")
    assert done.returncode == 2 and "no video of lrw" in done.stderr


def test_inspect_draws_a_sheet_and_finds_leaks(prepared, tmp_path, capsys):
    assert inspect.main([str(prepared), "--sheet", str(tmp_path / "a.png"), "--verify"]) == 0
    assert (tmp_path / "a.png").stat().st_size > 1000
    rows = read_rows(prepared / "manifest.csv")
    leaking = tmp_path / "leaking"
    leaking.mkdir()
    os.symlink(prepared / "clips", leaking / "clips")
    write_rows(leaking / "manifest.csv", [type(row)(**{**row.__dict__, "identity": "one"}) for row in rows])
    capsys.readouterr()
    assert inspect.main([str(leaking)]) == 1
    assert "identity one is in test and train and val" in capsys.readouterr().err


@pytest.mark.skipif(not (GRID.is_dir() and available()), reason="needs optional clips of GRID and `make pose-tools`")
def test_real_grid_clips(tmp_path):
    raw = tmp_path / "raw"
    for name in ("s1/bbaf2n.mp4", "s2/bbaf1n.mp4", "original/s1/bbaf2n.mpg"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(GRID / name, raw / name)
    output = tmp_path / "out"
    line = ["-m", "datasets.prepare", "grid", "--input", str(raw), "--output", str(output), "--test-identities", "s2"]
    subprocess.run([sys.executable, *line], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    clips = load_manifest(output)
    assert [(clip.row.id, clip.row.split) for clip in clips] == [("s1_bbaf2n", "train"), ("s2_bbaf1n", "test")]
    for clip in clips:
        assert clip.frames == 75 and clip.row.pose_success == 1.0 and clip.row.size == 256
        assert 33 < np.median(clip.mouth()[:, 2]) < 60  # refined lips are 2 narrower than the plain mesh's
        assert np.abs(clip.pose()[:, :3]).max() < 0.4 and 230 < np.median(clip.pose()[:, 5]) < 330


def noise(seconds: int) -> av.AudioFrame:
    """Sound at 16 kHz that is not silent."""
    samples = np.random.default_rng(0).normal(0, 3000, (1, seconds * 16000)).astype(np.int16)
    block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    block.sample_rate = 16000
    return block


@pytest.mark.skipif(not (GRID.is_dir() and available()), reason="needs optional clips of GRID and `make pose-tools`")
def test_any_video_is_cut_into_spans_with_one_face(tmp_path):
    """Two sentences of two speakers in a row, at 30 fps, then two seconds without a face."""
    raw = tmp_path / "raw"
    raw.mkdir()
    with av.open(str(raw / "talk.mkv"), "w") as file:
        video, audio = file.add_stream("libx264", rate=30), file.add_stream("pcm_s16le", rate=16000, layout="mono")
        video.width, video.height, video.pix_fmt = 360, 288, "yuv420p"
        pictures = [p for name in ("s1/bbaf2n", "s2/bbaf1n") for p in frames_of(GRID / f"{name}.mp4")]
        for number in range(8 * 30):
            picture = pictures[min(number * 25 // 30, 149)] if number < 180 else np.full((288, 360, 3), 90, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode())
        file.mux(audio.encode(noise(8)))
    line = ["-m", "datasets.prepare", "videos", "--input", str(raw), "--output", str(tmp_path / "out"), "--size", "128"]
    subprocess.run([sys.executable, *line], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    clips = load_manifest(tmp_path / "out")
    assert [clip.row.id for clip in clips] == ["talk_000000", "talk_000075"]
    assert all(70 <= clip.frames <= 76 for clip in clips) and clips[1].row.start_s == 3.0
    assert len({clip.row.crop for clip in clips}) == 2


@pytest.mark.skipif(not (GRID.is_dir() and available()), reason="needs optional clips of GRID and `make pose-tools`")
def test_clips_that_are_cropped_already_stay_as_they_are(tmp_path):
    """Two seconds, in which the face is as high as three quarters of the picture: searched for, it is rejected."""
    raw = tmp_path / "raw" / "somebody"
    raw.mkdir(parents=True)
    with av.open(str(raw / "tight.mkv"), "w") as file:
        video, audio = file.add_stream("libx264", rate=25), file.add_stream("pcm_s16le", rate=16000, layout="mono")
        video.width, video.height, video.pix_fmt = 176, 176, "yuv420p"
        for picture in itertools.islice(frames_of(GRID / "s1/bbaf2n.mp4"), 50):
            tight = np.ascontiguousarray(picture[60:236, 92:268])
            file.mux(video.encode(av.VideoFrame.from_ndarray(tight, format="rgb24")))
        file.mux(video.encode())
        file.mux(audio.encode(noise(2)))
    line = [sys.executable, "-m", "datasets.prepare", "videos", "--input", str(raw.parent), "--size", "128"]
    searched, whole = str(tmp_path / "searched"), str(tmp_path / "whole")
    rejected = subprocess.run([*line, "--output", searched], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert rejected.returncode == 2  # nothing is left to train on
    assert "no 64 frames" in (tmp_path / "searched" / "rejected.csv").read_text()
    kept = [*line, "--output", whole, "--framing", "whole", "--min-frames", "48"]
    subprocess.run(kept, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    (clip,) = load_manifest(whole)
    assert (clip.row.id, clip.frames, clip.row.crop, clip.row.size) == ("somebody_tight", 50, "0 0 176", 128)
    assert clip.eyes().shape == (50, 2, 4)
    left, right = np.nanmedian(clip.eyes(), axis=0)
    assert left[0] < right[0] and 0.1 < left[3] / left[2] < 0.5 and 0.1 < right[3] / right[2] < 0.5
    refused = subprocess.run([*line, "--output", whole, "--min-frames", "48"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "was begun with framing" in refused.stderr
