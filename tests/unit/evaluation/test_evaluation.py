"""Every metric against a value that is known, and the rules of docs/EVALUATION.md."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

import evaluate
from datasets.clips import Clip, ClipRow
from datasets.errors import DataError
from datasets.pose import PoseRange
from engine.checkpoint import CheckpointError
from engine.config import ConfigError, load
from evaluation import EvaluationError, bootstrap, report
from evaluation.metrics import METRICS
from evaluation.protocol import Evaluation, strangers
from evaluation.rows import ROWS, TRUTH
from evaluation.scores import fidelity, motion_error
from evaluation.scores.identity import ArcFace
from evaluation.scores.networks import NetworkPaths, Networks, load_inception, load_lpips, load_networks
from evaluation.scores.score import score
from evaluation.scores.sync import SyncNet
from evaluation.store import ClipResult, Store
from evaluation.videos import matching
from evaluation.videos.candidate import Candidate
from evaluation.videos.generated import VariantPaths
from evaluation.videos.truth import Footage, PreparedItem, Truth, VideoItem, shortened
from modules import measures
from modules.keypoints import Keypoints

CONFIGS = Path(__file__).parents[3] / "config"
CPU = torch.device("cpu")
MOUTH = np.array([128.0, 180.0, 40.0, 4.0])  # x, y, width, opening in pixels of 256


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ---- intervals


def test_interval_draws_identities_not_clips():
    values = np.repeat([0.0, 1.0], 50)
    identities = ["a"] * 50 + ["b"] * 50
    assert bootstrap.interval(values, identities, 500) == (0.0, 1.0)  # drawing clips would give about 0.4 to 0.6
    low, high = bootstrap.interval(values, [str(n) for n in range(100)], 2000)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02) and high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_interval_is_of_the_mean_over_clips():
    """Identities with more clips weigh more: three of five clips are 1, in one identity."""
    low, high = bootstrap.interval(np.array([0, 0, 1, 1, 1.0]), ["a", "a", "b", "b", "b"], 4000)
    assert (low, high) == (0, 1)
    values, identities = np.array([0.0, *[1.0] * 9, *[0.5] * 10]), ["a", *["b"] * 9, *["c"] * 10]
    low, high = bootstrap.interval(values, identities, 4000)
    assert high == 1.0 and low == 0.0
    assert bootstrap.interval(values, ["a"] * 20, 100) is None


# ---- pictures


def test_psnr_of_ten_levels_and_ssim_of_equals():
    image, wanted = np.full((3, 32, 32, 3), 110, np.uint8), np.full((3, 32, 32, 3), 100, np.uint8)
    scores = fidelity.picture_scores(image, wanted, np.tile(MOUTH, (3, 1)), Networks(CPU))
    assert scores["psnr"] == pytest.approx(20 * np.log10(25.5), abs=1e-4) == pytest.approx(scores["mouth_psnr"])
    assert "lpips" not in scores
    same = fidelity.picture_scores(
        noise(0, 3, 32, 32, 3), noise(0, 3, 32, 32, 3), np.tile(MOUTH, (3, 1)), Networks(CPU)
    )
    assert same["psnr"] == pytest.approx(100) and same["ssim"] == pytest.approx(1)


def test_the_mouth_counts_inside_its_box_only():
    wanted = noise(1, 40, 64, 64, 3)
    at_mouth, elsewhere = wanted.copy(), wanted.copy()
    at_mouth[:, 43:47, 30:34] //= 2  # pixel 32 of 64 is 128 of 256, 45 is 180
    elsewhere[:, 5:9, 30:34] //= 2
    mouth = np.tile(MOUTH, (40, 1))
    mouth[0] = np.nan  # a frame without a mouth does not count
    hit, missed = (fidelity.picture_scores(image, wanted, mouth, Networks(CPU)) for image in (at_mouth, elsewhere))
    assert missed["mouth_psnr"] == pytest.approx(100) and missed["mouth_ssim"] == pytest.approx(1)
    assert hit["mouth_psnr"] < 30 and hit["mouth_ssim"] < 0.99 and hit["psnr"] == pytest.approx(missed["psnr"], abs=0.5)
    nowhere = fidelity.picture_scores(at_mouth, wanted, np.full((40, 4), np.nan), Networks(CPU))
    assert np.isnan(nowhere["mouth_psnr"]) and np.isnan(nowhere["mouth_ssim"])


def test_box_ssim_is_the_mean_of_skimages_map_in_the_box():
    a, b = noise(2, 48, 48) / 255, noise(3, 48, 48) / 255
    b = 0.7 * a + 0.3 * b
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, whole = structural_similarity(a, b, full=True, **settings)
    tensors = (torch.from_numpy(x).float().expand(1, 3, 48, 48) for x in (a, b))
    step = 2 / 47  # pixel 10 to 29
    box = torch.tensor([[-1 + 9.5 * step, -1 + 11.5 * step, -1 + 29.5 * step, -1 + 30.5 * step]])
    assert measures.box_ssim(*tensors, box).item() == pytest.approx(whole[12:31, 10:30].mean(), abs=1e-4)


def test_fid_of_shifted_features_is_the_squared_shift():
    features = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    assert fidelity.frechet_inception_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert fidelity.frechet_inception_distance(features, features + 0.5) == pytest.approx(16 * 0.25, rel=1e-4)


def test_inception_loads_from_the_file_that_torch_fidelity_publishes(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "weights.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is not the published file: its SHA-256 begins with"):
        load_inception(path, CPU)
    with monkeypatch.context() as patch:  # the same network without a file, to write one of its layout
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    frames = np.concatenate([noise(4, 1, 64, 64, 3)] * 2 + [noise(5, 1, 64, 64, 3)])
    features = fidelity.inception_features(frames, load_inception(path, CPU, sha256_prefix=""), CPU)
    assert features.shape == (3, 2048) and features.dtype == np.float32
    assert np.allclose(features[0], features[1], 1e-3, 0) and not np.allclose(features[0], features[2], 1e-3, 0)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A file of AlexNet's convolutions with random weights."""
    import torchvision

    torch.manual_seed(0)
    state = torchvision.models.alexnet(weights=None).features.state_dict()
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save({f"features.{key}": value for key, value in state.items()}, path)
    return path


def test_lpips_takes_its_backbone_from_the_file(alexnet):
    network = load_lpips(alexnet, CPU, sha256_prefix="")
    trained = torch.load(alexnet, weights_only=True)
    assert torch.equal(network.net.slice5.state_dict()["10.weight"], trained["features.10.weight"])
    scored = fidelity.picture_scores(
        noise(6, 2, 64, 64, 3), noise(6, 2, 64, 64, 3), np.tile(MOUTH, (2, 1)), Networks(CPU, lpips=network)
    )
    assert scored["lpips"] == pytest.approx(0, abs=1e-7)
    a, b = noise(6, 2, 64, 64, 3), noise(7, 2, 64, 64, 3)
    far = fidelity.picture_scores(a, b, np.tile(MOUTH, (2, 1)), Networks(CPU, lpips=network))["lpips"]
    scaled = [torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (a, b)]
    assert far == pytest.approx(network(*scaled).mean().item(), rel=1e-4) and far > 1e-4


def test_networks_that_are_not_there_are_named(alexnet, tmp_path):
    networks = load_networks(NetworkPaths(), CPU)
    assert networks.missing["lpips"] == "needs alexnet-owt-7be5be79.pth (networks.lpips=FILE)"
    assert networks.missing["fid"] == "needs pt_inception-2015-12-05-6726825d.pth (networks.inception=FILE)"
    assert networks.missing["lse_c"] == "needs syncnet_v2.model (networks.syncnet=FILE)"
    assert networks.missing.keys() <= METRICS.keys()
    with pytest.raises(EvaluationError, match=r"networks\.lpips: .*gone\.pth does not exist; give alexnet-owt"):
        load_networks(NetworkPaths(lpips=str(tmp_path / "gone.pth")), CPU)
    with pytest.raises(CheckpointError, match="SHA-256"):  # random weights are not the published ones
        load_networks(NetworkPaths(lpips=str(alexnet)), CPU)


# ---- motion and sound


def test_head_pose_error_is_in_units_of_half_a_range():
    pose_range = PoseRange((-1, -1, -1, 0, 0, 200), (1, 1, 1, 100, 100, 400))
    true = np.tile(np.float32([0, 0, 0, 50, 50, 300]), (5, 1))
    moved = true + np.float32([0.5, 0, 0, 25, 0, 100])  # a half, a half and a whole of half a range
    assert motion_error.head_pose_error(moved, true, pose_range) == pytest.approx((0.5 + 0.5 + 1) / 6)


def test_keypoint_error_is_the_mean_over_coordinates():
    true = np.zeros((4, 10, 2), np.float32)
    assert motion_error.keypoint_error(true + np.float32([0.2, -0.4]), true) == pytest.approx(0.3)


def test_loudness_of_a_full_sine_and_of_silence():
    sine = np.round(32767 * np.sin(2 * np.pi * 100 * np.arange(1280) / 16_000)).astype(np.int16)
    found = motion_error.loudness(np.concatenate([sine, np.zeros(100, np.int16)]), 4)
    assert found == pytest.approx([-3.01, -3.01, -60, -60], abs=0.01)


# ---- a whole clip, with a face finder that is told what to find


class Told:
    """Stands in for mediapipe: finds a given mesh in every frame, and counts the videos."""

    def __init__(self, mesh_TN3: np.ndarray) -> None:
        self.mesh_TN3, self.asked = mesh_TN3, 0

    def meshes(self, frames) -> np.ndarray:
        self.asked += 1
        return self.mesh_TN3[: len(frames)]


def speaking_mesh(opening_T: np.ndarray) -> np.ndarray:
    """468 points about the middle of a 64x64 picture whose inner lips (13, 14) are so far apart."""
    mesh = np.tile(np.random.default_rng(0).uniform(24, 40, (468, 3)).astype(np.float32), (len(opening_T), 1, 1))
    mesh[:, 33, :2], mesh[:, 263, :2] = (26, 28), (38, 28)
    mesh[:, 13, :2], mesh[:, 14, :2] = (32, 38), (32, 38)
    mesh[:, 14, 1] += opening_T
    return mesh


def loud(level_T: np.ndarray) -> np.ndarray:
    """Sound whose level in a frame is `level_T`, 0 to 1."""
    tone = np.sin(2 * np.pi * 200 * np.arange(640) / 16_000)
    return np.round(20_000 * np.concatenate([level * tone for level in level_T])).astype(np.int16)


OPENING = 1 + np.abs(np.sin(np.arange(40) / 3))


def a_truth(finder: Told | None) -> Truth:
    pose = np.float32([0, 0, 0, 50, 50, 300]) + np.random.default_rng(1).normal(0, 0.01, (40, 6)).astype(np.float32)
    keypoints = Keypoints(torch.zeros(40, 10, 2), None)
    frames = noise(8, 40, 64, 64, 3)
    mouth = np.tile(MOUTH, (40, 1))
    return Truth(
        "clip", "anna", Path("a.wav"), Footage(frames, finder), loud(OPENING / 2), pose, mouth, None, keypoints
    )


def test_a_clip_scored_against_itself_is_perfect_and_frame_0_does_not_count():
    finder = Told(speaking_mesh(OPENING))
    truth = a_truth(finder)
    frames = truth.footage.frames_THWC.copy()
    frames[0] = 0
    position, pose = np.zeros((40, 10, 2)), truth.pose_TP.copy()
    position[0], pose[0] = 9, 9
    candidate = Candidate(Footage(frames, finder), truth.pcm, truth.sound, pose, position)
    scores = score(ROWS["full"], candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange())
    perfect = {"psnr": 100, "ssim": 1, "mouth_psnr": 100, "mouth_ssim": 1, "he": 0, "ke": 0, "background": 1}
    perfect |= {"opening_truth": 1}
    assert scores.missing["spectrum"] == "fewer than 50 frames, or a head that never turns" and not scores.notes
    assert {name: scores.metrics[name] for name in perfect} == pytest.approx(perfect, abs=1e-5)
    assert scores.metrics["opening_loudness"] > 0.9 and scores.metrics["jitter"] < 0.1
    assert scores.missing["lpips"].startswith("needs alexnet")
    assert finder.asked == 2  # once a video


def test_the_truth_and_given_poses_are_not_praised():
    truth = a_truth(Told(speaking_mesh(OPENING)))
    candidate = Candidate(truth.footage, truth.pcm, truth.sound, truth.pose_TP, np.zeros((40, 10, 2)))
    by_row = {
        row.name: score(row, candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange()).metrics.keys()
        for row in (TRUTH, ROWS["gt-head"], ROWS["gt-keypoint"], ROWS["wrong-audio"])
    }
    assert "psnr" not in by_row["truth"] and {"opening_loudness", "diversity"} <= by_row["truth"]
    assert "he" not in by_row["gt-head"] and {"psnr", "ke"} <= by_row["gt-head"]
    assert not {"he", "ke"} & by_row["gt-keypoint"]
    assert by_row["wrong-audio"] <= {"opening_loudness", "lse_c", "lse_d", "av_offset", "beat_alignment"}


def test_without_pose_tools_faces_are_reported_missing():
    truth = a_truth(None)
    candidate = Candidate(Footage(truth.footage.frames_THWC, None), truth.pcm, truth.sound)
    truth, networks = replace(truth, keypoints=None), load_networks(NetworkPaths(), CPU)
    scores = score(ROWS["still"], candidate, truth, networks, PoseRange())
    assert scores.missing["opening_truth"] == scores.missing["he"] == "needs `make pose-tools`"
    assert scores.missing["ke"] == "needs --checkpoint with N_D"
    clip_metrics = {name for name, metric in METRICS.items() if metric.over == "clip"}
    assert clip_metrics == scores.metrics.keys() | scores.missing.keys()


def test_a_face_in_too_few_frames_counts_as_none():
    mesh = speaking_mesh(OPENING)
    mesh[5:8] = np.nan
    footage = Footage(noise(9, 40, 64, 64, 3), Told(mesh))
    assert np.isfinite(footage.faces).all() and np.isnan(footage.mesh_TN3[6]).all()
    assert footage.pose_TP.shape == (40, 6)
    assert footage.cut(10).mesh_TN3.shape == (10, 468, 3) and footage.finder.asked == 1
    mesh[:20] = np.nan
    assert Footage(noise(9, 40, 64, 64, 3), Told(mesh)).faces is None


def test_shortening_a_truth_shortens_all_of_it():
    truth = shortened(a_truth(None), 7)
    assert len(truth) == len(truth.pose_TP) == len(truth.mouth_T4) == len(truth.keypoints.position_BK2) == 7
    assert shortened(truth, 9) is truth


def test_identity_and_lip_networks_see_the_faces():
    """Untrained, but the wiring is seen: equal frames are one identity, and SyncNet gives all three numbers."""
    torch.manual_seed(0)
    with torch.no_grad():
        networks = Networks(CPU, syncnet=SyncNet().eval(), arcface=ArcFace(18).eval(), missing={"lpips": "needs X"})
    finder = Told(speaking_mesh(OPENING[:12]))
    truth = shortened(a_truth(finder), 12)
    same = Footage(truth.footage.frames_THWC[:1].repeat(12, 0), finder)
    scores = {
        name: score(ROWS["full"], Candidate(footage, truth.pcm, truth.sound), truth, networks, PoseRange()).metrics
        for name, footage in (("same", same), ("changing", truth.footage))
    }
    # Only the mouth of the given mesh moves, and alignment does not look at it.
    assert scores["same"]["csim"] == pytest.approx(1, abs=1e-5)
    assert scores["changing"]["csim"] < 1 - 1e-4
    assert {"lse_c", "lse_d", "av_offset"} <= scores["same"].keys() and scores["same"]["lse_d"] > 0


def test_spectrum_is_of_head_angles_after_frame_0():
    swing = np.sin(2 * np.pi * np.arange(51) / 25)
    true_pose, pose = np.tile(np.float32([0, 0, 0, 50, 50, 300]), (2, 51, 1))
    true_pose[:, 0], pose[:, 0] = swing, 2 * swing
    true_pose[:, 3], pose[:, 3] = swing, (-1.0) ** np.arange(51)  # places do not count
    pose[0] = 99
    frames = noise(8, 51, 16, 16, 3)
    truth = replace(
        a_truth(None),
        footage=Footage(frames, None),
        pose_TP=true_pose,
        mouth_T4=np.tile(MOUTH, (51, 1)),
        keypoints=None,
    )
    candidate = Candidate(truth.footage, truth.pcm, truth.sound, pose)
    metrics = {
        row: score(ROWS[row], candidate, truth, load_networks(NetworkPaths(), CPU), PoseRange()).metrics
        for row in ("full", "gt-head")
    }
    assert metrics["full"]["spectrum"] == pytest.approx(0, abs=1e-6) and "spectrum" not in metrics["gt-head"]


@dataclass(frozen=True)
class ToyItem:
    """A clip without files."""

    id: str
    identity: str
    digest: str = ""

    def read(self, size: int | None, finder: Told | None) -> Truth:
        frames = noise(int(self.id), 5, 16, 16, 3)
        mouth = np.full((5, 4), np.nan)
        return Truth(self.id, self.identity, Path("a.wav"), Footage(frames, None), loud(np.ones(5)), None, mouth)


class ToyMaker:
    """Makes every row by adding a few levels to the true frames."""

    size, weights = None, {}

    def __init__(self) -> None:
        self.made = []

    def made_with(self, row, clip_id: str) -> dict[str, str]:
        return {}

    def detected(self, truth: Truth) -> None:
        return None

    def candidate(self, row, truth: Truth, other: Truth | None) -> Candidate:
        self.made.append((row.name, truth.id, other and other.id))
        frames = truth.footage.frames_THWC // 2 + (0 if row.name == "truth" else 7)
        return Candidate(Footage(frames, truth.footage.finder), truth.pcm, truth.sound)


def test_a_clip_notes_how_many_of_its_frames_csim_is_of(tmp_path):
    mesh = speaking_mesh(OPENING[:5])
    mesh[2] = np.nan

    class Seen(ToyItem):
        def read(self, size: int | None, finder: Told | None) -> Truth:
            truth = super().read(size, finder)
            return replace(truth, footage=Footage(truth.footage.frames_THWC, Told(mesh)))

    networks = replace(load_networks(NetworkPaths(), CPU), arcface=ArcFace(18).eval().requires_grad_(False))
    del networks.missing["csim"]
    rows, items = [TRUTH, ROWS["wrong-audio"]], [Seen("1", "a"), Seen("2", "b")]
    results = Evaluation(ToyMaker(), rows, items, networks, PoseRange(), False, Store(tmp_path)).run()
    assert [clip.notes for clip in results["truth"]] == [["CSIM is of 3 of 4 frames: no face in the others"]] * 2
    assert [clip.notes for clip in results["wrong-audio"]] == [[], []]


def test_fid_is_of_all_frames_but_the_first_and_clips_are_made_once(tmp_path):
    class Pooled(torch.nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return frames.float().mean((2, 3))

    networks = replace(load_networks(NetworkPaths(), CPU), inception=Pooled(), digests={"inception": "1"})
    del networks.missing["fid"]
    rows = [TRUTH, replace(ROWS["full"], generated=False), ROWS["wrong-audio"]]
    items = [ToyItem("1", "a"), ToyItem("2", "b"), ToyItem("3", "b")]
    maker = ToyMaker()
    evaluation = Evaluation(maker, rows, items, networks, PoseRange(), False, Store(tmp_path))
    summaries = report.summarise(evaluation, evaluation.run(), report.BootstrapConfig())
    assert summaries["full"].numbers["fid"].mean == pytest.approx(3 * 7**2, rel=1e-3)
    assert np.load(tmp_path / "inception" / "full" / "1.npy").shape == (4, 3)
    assert "fid" in summaries["wrong-audio"].exempt and not (tmp_path / "inception" / "wrong-audio").exists()
    assert [made for made in maker.made if made[0] == "wrong-audio"] == [
        ("wrong-audio", "1", "2"),
        ("wrong-audio", "2", "1"),
        ("wrong-audio", "3", "1"),
    ]
    maker.made.clear()
    evaluation.run()
    assert not maker.made


# ---- matching


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_stems_without_a_partner_are_named(tmp_path):
    for name in ("a", "b", "x", "y"):
        touch(tmp_path / "generated" / f"{name}.mp4")
    for name in ("anna/a", "anna/b", "bert/c", "d"):
        touch(tmp_path / "reference" / f"{name}.avi")
    matches = matching.match(tmp_path / "generated", tmp_path / "reference", "test")
    assert [(item.id, item.identity) for item in matches.items] == [("a", "anna"), ("b", "anna")]
    assert (matches.missing, matches.extra) == (["c", "d"], ["x", "y"])
    assert matches.notes() == [
        "2 references have no generated video: c, d",
        "2 generated videos have no reference: x, y",
    ]
    assert matching.match(tmp_path / "reference", tmp_path / "reference", "test").items[-1].identity == "d"


def test_folders_that_cannot_be_matched_are_sentences(tmp_path):
    touch(tmp_path / "generated" / "a.mp4")
    touch(tmp_path / "reference" / "b.mp4")
    with pytest.raises(EvaluationError, match=r"no video of .* has the stem of one of .*: a against b"):
        matching.match(tmp_path / "generated", tmp_path / "reference", "test")
    touch(tmp_path / "generated" / "more" / "a.mkv")
    with pytest.raises(DataError, match="have the same stem"):
        matching.match(tmp_path / "generated", tmp_path / "reference", "test")
    with pytest.raises(DataError, match="is not a folder"):
        matching.match(tmp_path / "nowhere", tmp_path / "reference", "test")


# ---- rows, results, reports


def item(id: str, identity: str) -> PreparedItem:
    row = ClipRow(id, identity, "test", 40, 64, "", 0.0, "", 0.0, "", 1.0, 0.5, "")
    return PreparedItem(Clip(row, 0, Path(id)))


def test_rows_that_cannot_be_made_say_what_they_need():
    rows, missing = evaluate.choose_rows(("full", "l1", "no-jacobian", "wrong-audio"), [item("1", "a")], VariantPaths())
    assert [row.name for row in rows] == ["truth", "full"]
    assert missing == {
        "l1": "needs variants.l1=RUN of train_headpose.py",
        "no-jacobian": "needs variants.no_jacobian=RUN of train_motionfield.py",
        "wrong-audio": "needs clips of two identities",
    }
    two = [item("1", "a"), item("2", "b")]
    assert not evaluate.choose_rows(("no-set", "wrong-audio"), two, VariantPaths(no_set="x"))[1]


def test_the_other_clip_is_the_next_stranger():
    items = [item(str(number), identity) for number, identity in enumerate("aabbbc")]
    found = {id: other.id for id, other in strangers(items).items()}
    assert found == {"0": "2", "1": "2", "2": "5", "3": "5", "4": "5", "5": "0"}
    assert strangers(items[2:5]) == {}


def test_clips_are_spread_evenly():
    assert evaluate.spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert evaluate.spread(list(range(3)), 5) == evaluate.spread(list(range(3)), 0) == [0, 1, 2]


def result(clip: str, identity: str = "a", made_with: dict | None = None, **metrics: float) -> ClipResult:
    missing = {name: "needs FILE" for name in METRICS if name not in metrics}
    return ClipResult(clip, identity, 40, metrics, missing, [], made_with or {"weights": "1"})


def test_results_of_other_weights_are_refused(tmp_path):
    store = Store(tmp_path)
    assert store.read("full", "a", {"weights": "1"}) is None
    store.write("full", result("a", psnr=30.0))
    assert store.read("full", "a", {"weights": "1"}).metrics == {"psnr": 30.0}
    with pytest.raises(EvaluationError, match=r"was made with another weights \(1, now 2\); choose another --output"):
        store.read("full", "a", {"weights": "2"})
    with pytest.raises(EvaluationError, match=r"another network lpips \(none, now 7b\)"):
        store.read("full", "a", {"weights": "1", "network lpips": "7b"})
    (tmp_path / "clips/full/a.json").write_text('{"clip": ')
    with pytest.raises(EvaluationError, match="is no result of a clip"):
        store.read("full", "a", {"weights": "1"})


def test_the_table_has_arrows_intervals_and_reasons(tmp_path):
    class Run:
        rows = (TRUTH, ROWS["full"])
        networks = Networks(CPU, missing={"fid": "needs INCEPTION"})
        store = Store(tmp_path)

    for row in ("truth", "full"):
        for clip in "xyz":
            candidate = Candidate(Footage(noise(0, 4, 8, 8, 3), None), np.zeros(0), Path(), np.zeros((4, 6)))
            Run.store.write_motion(row, clip, candidate)
    results = {
        "truth": [result(clip, clip, opening_loudness=0.9) for clip in "xyz"],
        "full": [result("x", "x", psnr=20.0), result("y", "y", psnr=22.0), result("z", "z")],
    }
    summaries = report.summarise(Run, results, report.BootstrapConfig())
    assert summaries["full"].numbers["psnr"] == report.Number(21.0, 20.0, 22.0, 2)
    assert summaries["full"].missing["pose_velocity"] == "the true heads do not move"
    facts = {"identities": 3, "data": "toys", "notes": ["a note"]}
    report.write_reports(tmp_path, summaries, {"l1": "needs A"}, results, facts)
    text = (tmp_path / "results.md").read_text()
    assert "| | PSNR dB ↑ | SSIM ↑ |" in text and "LPIPS ↓" in text
    assert "| full | 21.00 [20.00, 22.00] (2 of 3) | ? |" in text and "| truth | – | – |" in text
    assert "- FID: not computed: needs INCEPTION" in text and "- l1: not computed: needs A" in text
    assert "- LPIPS: not computed: needs FILE" in text and "- a note" in text
    assert "0.900 [0.900, 0.900]" in text
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["protocol"] == "audio2head-evaluation/2" and len(document["clips"]["full"]) == 3
    assert (tmp_path / "plots" / "psnr.png").stat().st_size > 1000
    assert not (tmp_path / "plots" / "ssim.png").exists()


# ---- configuration


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("evaluate_*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    assert set(load(evaluate.Config, path).rows) == set(ROWS)


def test_a_wrong_key_or_row_is_named():
    with pytest.raises(ConfigError, match=r"unknown key variants\.no_jacobians; did you mean variants\.no_jacobian\?"):
        load(evaluate.Config, None, ["variants.no_jacobians=x"])
    with pytest.raises(ConfigError, match=r"rows.*'gt-head'.*found 'gt-heads'"):
        load(evaluate.Config, None, ["rows=[gt-heads]"])


def test_a_video_item_is_named_by_its_file():
    assert VideoItem(Path("x/anna 1.mp4"), "anna").id == "anna 1"
