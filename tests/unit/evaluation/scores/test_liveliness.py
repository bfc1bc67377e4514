"""Liveliness against values known by hand or by construction."""

import fcntl
import threading

import numpy as np
import pytest

from datasets.face.mesh import INNER_BOTTOM, INNER_TOP
from evaluation.scores import liveliness as live

TIME_S = np.arange(100) / 25


def poses(motion_T: np.ndarray | float, axis: int, frames: int = 100) -> np.ndarray:
    pose_TP = np.tile([0.0, 0, 0, 10, 20, 300], (frames, 1))
    pose_TP[:, axis] += motion_T
    return pose_TP


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# ---- head pose


def test_head_deviation_is_in_degrees_by_axis() -> None:
    pose_TP = poses(0, 0)
    pose_TP[::2, 0] += np.radians(2)  # pitch of 0 and 2 degrees: deviation 1
    pose_TP[::2, 1] += np.radians(8)
    pose_TP[:, 3:] += noise(0, 100, 3)  # places do not count
    assert live.head_deviation(pose_TP) == pytest.approx((1, 4, 0, 5 / 3))
    pose_TP[4:6] = np.nan
    assert live.head_deviation(pose_TP) == pytest.approx((1, 4, 0, 5 / 3))
    assert np.isnan(live.head_deviation(pose_TP[3:6])).all()


def test_frechet_distance_has_its_closed_form() -> None:
    """Commuting covariances: |mean difference|^2 + sum of (deviation difference)^2."""
    mean_a, mean_b = np.array([1.0, 2, 3]), np.array([1.0, 0, 4])
    rotation, _ = np.linalg.qr(noise(1, 3, 3))
    cov_a = rotation @ np.diag([1.0, 4, 9]) @ rotation.T
    cov_b = rotation @ np.diag([4.0, 4, 0]) @ rotation.T  # singular
    assert live.frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(5 + (1 + 0 + 9))
    assert live.frechet_distance(mean_a, cov_a, mean_a, cov_a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    """For two by two, tr (A B)^1/2 = (tr A B + 2 (det A B)^1/2)^1/2."""
    cov_a, cov_b = np.array([[2.0, 1], [1, 3]]), np.array([[5.0, -2], [-2, 1]])
    product = cov_a @ cov_b
    shared = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    zero = np.zeros(2)
    assert live.frechet_distance(zero, cov_a, zero, cov_b) == pytest.approx(5 + 6 - 2 * shared)


def test_pose_velocity_distance_is_0_for_equal_and_6_for_still_heads() -> None:
    true = [np.cumsum(noise(seed, 400, 6) * (0.01, 0.02, 0.01, 1, 2, 3), axis=0) for seed in range(4)]
    still = [np.zeros((75, 6))] * 3
    other_place = [pose_TP + 100 for pose_TP in true]
    assert live.pose_velocity_distance(other_place, true) == pytest.approx(0, abs=1e-6)
    assert live.pose_velocity_distance(still, true) == pytest.approx(6, abs=0.05)
    # twice the speed: each axis is one deviation off
    assert live.pose_velocity_distance([2 * pose_TP for pose_TP in true], true) == pytest.approx(6, abs=0.05)


def test_pose_velocity_distance_without_enough_motion_is_unknown() -> None:
    true = [np.cumsum(noise(0, 100, 6), axis=0)]
    holes = true[0].copy()
    holes[1::2] = np.nan  # never two poses in a row
    assert np.isnan(live.pose_velocity_distance([holes], true))
    assert np.isnan(live.pose_velocity_distance(true, [np.zeros((75, 6))]))
    holes[1:40] = true[0][1:40]
    assert np.isfinite(live.pose_velocity_distance([holes], true))


def test_band_shares_find_the_frequency() -> None:
    slow, speech, fast = (np.sin(2 * np.pi * frequency * TIME_S) for frequency in (0.5, 2, 8))
    drift = 3 * TIME_S
    share_FP = live.band_shares(np.stack([slow, speech + drift, fast, speech + 2 * fast], 1))
    assert share_FP.sum(0) == pytest.approx(1)
    assert share_FP[:, :3] == pytest.approx(np.eye(3), abs=0.06)
    assert share_FP[1:, 3] == pytest.approx([0.2, 0.8], abs=0.02)  # power, not amplitude
    between_bins_T, fastest_T = np.sin(2 * np.pi * 8.13 * TIME_S), (-1.0) ** np.arange(100)
    share_FP = live.band_shares(np.stack([between_bins_T, fastest_T], 1))
    assert share_FP[2] == pytest.approx([1, 1], abs=1e-3)  # no leakage from one band into another


def test_a_still_float32_head_has_no_spectrum() -> None:
    still_TP = np.full((2000, 1), -0.38811365, np.float32)
    assert np.isnan(live.band_shares(still_TP)).all()


def test_band_shares_of_gaps_still_and_short_motion() -> None:
    motion_T2 = np.stack([np.sin(4 * np.pi * TIME_S), np.full(100, 0.1)], 1)
    motion_T2[30:33] = np.nan
    share_FP = live.band_shares(motion_T2)
    assert share_FP[1, 0] > 0.9 and np.isnan(share_FP[:, 1]).all()
    assert (
        np.isnan(live.band_shares(motion_T2[:49])).all() and np.isfinite(live.band_shares(motion_T2[:50])[:, 0]).all()
    )
    motion_T2[:60] = np.nan
    assert np.isnan(live.band_shares(motion_T2)).all()


def test_spectrum_distance_is_the_share_of_power_in_other_bands() -> None:
    speech, fast, still = np.sin(4 * np.pi * TIME_S), np.sin(16 * np.pi * TIME_S), np.full(100, 0.1)
    both = speech + fast  # half of its power is elsewhere
    true_TP = np.stack([speech, speech, still], 1)
    # neither size nor place counts
    assert live.spectrum_distance(5 * true_TP + 1, true_TP) == pytest.approx(0, abs=1e-9)
    assert live.spectrum_distance(np.stack([both, fast, speech], 1), true_TP) == pytest.approx(3 / 4, abs=0.02)
    # an axis along which one stands still does not count
    assert live.spectrum_distance(np.stack([both, still, speech], 1), true_TP) == pytest.approx(1 / 2, abs=0.02)
    assert np.isnan(live.spectrum_distance(np.stack([still, still, speech], 1), true_TP))
    assert np.isnan(live.spectrum_distance(true_TP[:49], true_TP))
    assert np.isfinite(live.spectrum_distance(true_TP[:50], true_TP))


# ---- jitter


def test_jitter_is_the_deviation_of_noise_on_smooth_motion() -> None:
    smooth_TD = np.stack([3 * TIME_S**2, 5 - TIME_S], 1)
    assert live.jitter(smooth_TD) == pytest.approx(0, abs=1e-9)
    assert live.jitter(np.tile(smooth_TD, (1, 50)) + 0.3 * noise(0, 100, 100)) == pytest.approx(0.3, rel=0.03)
    smooth_TD[50] = np.nan
    assert live.jitter(smooth_TD) == pytest.approx(0, abs=1e-9)
    assert np.isnan(live.jitter(smooth_TD[:3])) and np.isfinite(live.jitter(smooth_TD[:4]))


# ---- beats


def pausing(beats_hz: float, phase_s: float) -> np.ndarray:
    """A point [T, 1, 3] for 8 s, whose speed is zero at phase_s, phase_s + 1 / beats_hz ..."""
    time_s = np.arange(200) / 25
    speed_T = 1 - np.cos(2 * np.pi * beats_hz * (time_s - phase_s))
    return (np.cumsum(speed_T) - speed_T)[:, None, None] * np.array([1.0, 0, 0])


def test_motion_beats_are_the_pauses() -> None:
    beats_s = live.motion_beats(pausing(1, 0.52))
    assert beats_s == pytest.approx(np.arange(8) + 0.52)
    trembling = pausing(1, 0.52)
    trembling[::2] += 0.1
    assert live.motion_beats(trembling) == pytest.approx(beats_s)
    moving = pausing(1, 0.52)
    moving[40:44] = np.nan
    assert len(live.motion_beats(moving)) == len(beats_s)
    assert len(live.motion_beats(np.full_like(moving, np.nan))) == 0
    assert len(live.motion_beats(np.zeros((50, 1, 3)))) == len(live.motion_beats(moving[:1])) == 0


def test_beat_alignment_by_hand() -> None:
    beats_s = np.array([1.0, 2, 3])
    wanted = (1 + np.exp(-0.5) + np.exp(-2)) / 3
    assert live.beat_alignment(beats_s, np.array([1.0, 2.1, 3.2, 9])) == pytest.approx(wanted)
    assert live.beat_alignment(beats_s, np.empty(0)) == 0
    assert np.isnan(live.beat_alignment(np.empty(0), beats_s))


def test_a_head_that_pauses_at_the_clicks_is_aligned_and_one_between_them_is_not() -> None:
    clicks = np.zeros(8 * 16_000, np.int16)
    for start in range(8000, len(clicks), 8000):  # 120 a minute
        clicks[start : start + 400] = 8000 * noise(start, 400) * np.exp(-np.arange(400) / 80)
    heard_s = live.sound_beats(clicks)
    assert np.diff(heard_s) == pytest.approx(0.5, abs=0.05) and len(heard_s) >= 13
    assert live.beat_alignment(heard_s, live.motion_beats(pausing(2, 0.01))) > 0.85
    assert live.beat_alignment(heard_s, live.motion_beats(pausing(2, 0.26))) < 0.2


def test_the_beat_tracker_is_compiled_by_one_process_at_a_time() -> None:
    """Two at once spoil numba's cache; a lock of another open file stands for another process."""
    live._beat_tracker()  # compiled: what is waited for below is the lock alone
    other = threading.Thread(target=live._beat_tracker.__wrapped__)
    with open(live.NUMBA_LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other.start()
        other.join(3)
        assert other.is_alive()
    other.join(60)
    assert not other.is_alive()


def test_silence_and_a_snippet_have_no_beats() -> None:
    assert len(live.sound_beats(np.zeros(32_000, np.int16))) == 0
    assert len(live.sound_beats((1000 * noise(0, 7000)).astype(np.int16))) == 0


# ---- eyes and mouth


def face(openness_T: np.ndarray) -> np.ndarray:
    """Meshes [T, 468, 3] with eyes 30 wide and 30 * openness open; the outer corners 100 apart."""
    mesh_TN3 = np.zeros((len(openness_T), 468, 3))
    for (p1, p2, p3, p4, p5, p6), left in zip(live.EYES, (100, 170), strict=True):
        for point, x in zip((p1, p2, p3, p4, p5, p6), (0, 10, 20, 30, 20, 10), strict=True):
            mesh_TN3[:, point, 0] = left + x
        for point, side in ((p2, -0.5), (p3, -0.5), (p5, 0.5), (p6, 0.5)):
            mesh_TN3[:, point, 1] = side * 30 * openness_T
    return mesh_TN3


def lids(blinks: list[tuple[int, int]], frames: int = 100) -> np.ndarray:
    openness_T = np.full(frames, 0.3)
    for begin, end in blinks:
        openness_T[begin:end] = 0.1
    return openness_T


def test_eye_aspect_ratio_is_opening_by_width() -> None:
    assert live.eye_aspect_ratio(face(np.array([0.3, 0.1]))) == pytest.approx([0.3, 0.1])


def test_three_blinks_are_counted() -> None:
    ratio_T = live.eye_aspect_ratio(face(lids([(10, 13), (40, 41), (70, 78)])))
    assert live.blinks(ratio_T) == [(10, 13), (40, 41), (70, 78)]
    assert live.blink_rate(ratio_T) == pytest.approx(3 / 4)  # in four seconds


@pytest.mark.parametrize(
    ("closed", "counted"),
    [
        ([(0, 4)], 0),  # closed when the clip begins
        ([(97, 100)], 0),  # and when it ends
        ([(20, 32)], 1),  # half a second less a frame
        ([(20, 34)], 0),  # lowered eyes
    ],
)
def test_what_is_no_blink(closed: list[tuple[int, int]], counted: int) -> None:
    assert len(live.blinks(lids(closed))) == counted


def test_a_blink_needs_a_deep_fall_and_a_rise_and_a_face() -> None:
    half = np.full(100, 0.3)
    half[50:55] = 0.21  # eyes that look down: 0.7
    assert live.blinks(half) == []
    half[50:55] = [0.1, 0.21, 0.1, 0.21, 0.1]  # one blink that trembles
    assert live.blinks(half) == [(50, 55)]
    half[52] = np.nan
    assert live.blinks(half) == []
    assert live.blink_rate(np.where(np.arange(100) < 75, np.nan, 0.3)) == 0  # a second
    assert np.isnan(live.blink_rate(np.where(np.arange(100) < 76, np.nan, 0.3)))  # 24 frames
    assert live.blink_rate(np.where(np.arange(100) < 50, np.nan, lids([(80, 83)]))) == pytest.approx(0.5)
    assert np.isnan(live.blink_rate(np.full(100, np.nan)))


def test_mouth_opening_does_not_depend_on_size() -> None:
    mesh_TN3 = face(np.full(2, 0.3))
    mesh_TN3[:, INNER_TOP, 1], mesh_TN3[:, INNER_BOTTOM, 1] = 50, (60, 75)
    mesh_TN3[1] *= 2
    assert live.mouth_opening(mesh_TN3) == pytest.approx([0.1, 0.25])


# ---- background


@pytest.mark.filterwarnings("error")
def test_background_variation_is_that_of_the_pixels_outside_the_box() -> None:
    frames_THWC = np.full((10, 20, 30, 3), 200, np.uint8)
    box = np.array([10.2, 4.6, 20.3, 15.0])  # rounded: columns 10-19, rows 5-14
    frames_THWC[::2, 5:15, 10:20] = 0  # the head
    assert live.background_variation(frames_THWC, box) == 0
    frames_THWC[::2, 0, :, 1] = 194  # 30 of 500 pixels, one of three colours: deviation 3
    assert live.background_variation(frames_THWC, box) == pytest.approx(3 * 30 / 500 / 3)
    assert live.background_variation(frames_THWC, np.array([-9.0, -9, 11, 99])) > 0  # reaches out of the picture
    for unknown in (np.full(4, np.nan), np.array([-1.0, -1, 99, 99])):
        assert np.isnan(live.background_variation(frames_THWC, unknown))
    assert np.isnan(live.background_variation(frames_THWC[:1], box))


def test_background_stability_compares_with_the_true_video() -> None:
    true = (128 + 2 * noise(0, 40, 16, 16, 3)).round().astype(np.uint8)
    flickering = (128 + 6 * noise(1, 50, 16, 16, 3)).round().astype(np.uint8)
    flickering[40:] = 0  # beyond the true video's end: does not count
    box = np.array([4.0, 4, 12, 12])
    assert live.background_stability(flickering, true, box) == pytest.approx((6, 2, 3), rel=0.05)
    still = np.zeros_like(true)
    assert live.background_stability(still, true, box).ratio == 0
    assert live.background_stability(true, still, box).ratio == np.inf
    assert np.isnan(live.background_stability(still, still, box).ratio)


def test_head_box_holds_all_frames_and_hair() -> None:
    mesh_TN3 = np.zeros((3, 468, 3))
    mesh_TN3[:, 0, :2], mesh_TN3[:, 1, :2] = (100, 60), (200, 160)
    mesh_TN3[:, 2:, :2] = 130
    mesh_TN3[1, :, 0] += 20  # the head moves to the right
    mesh_TN3[2] = np.nan
    assert live.head_box(mesh_TN3) == pytest.approx([100 - 30, 60 - 50, 220 + 30, 160 + 15])
    assert np.isnan(live.head_box(np.full((2, 468, 3), np.nan))).all()


# ---- correlation


def test_correlation() -> None:
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    assert live.correlation(a, b) == pytest.approx(0.8)
    assert live.correlation(a, -b) == pytest.approx(-0.8)
    assert live.correlation(np.append(a, [np.nan, 9]), np.append(b, [7, np.nan])) == pytest.approx(0.8)


def test_correlation_with_a_signal_that_stands_still_is_unknown() -> None:
    a = np.arange(50.0)
    for still in (np.full(50, 0.1), np.zeros(50), np.full(50, 0.1) + 1e-9 * np.sin(a), np.full(50, 0.1, np.float32)):
        assert np.isnan(live.correlation(a, still)) and np.isnan(live.correlation(still, a))
    assert np.isnan(live.correlation(a[:2], a[:2])) and np.isnan(live.correlation(a, np.full(50, np.nan)))


# ---- loudness


def test_loudness_of_a_full_sine_and_of_silence():
    sine = np.round(32767 * np.sin(2 * np.pi * 100 * np.arange(1280) / 16_000)).astype(np.int16)
    found = live.loudness(np.concatenate([sine, np.zeros(100, np.int16)]), 4)
    assert found == pytest.approx([-3.01, -3.01, -60, -60], abs=0.01)


def test_amount_tells_small_motion_from_large_where_a_correlation_does_not() -> None:
    true_T = 0.1 + 0.05 * np.sin(np.arange(50))
    third_T = 0.05 + (true_T - true_T.mean()) / 3
    found = live.amount(third_T, true_T)
    assert live.correlation(third_T, true_T) == pytest.approx(1)
    assert found.deviation == pytest.approx(1 / 3) and found.mean == pytest.approx(0.05 / true_T.mean())
    gaps_T = third_T.copy()
    gaps_T[10:20] = np.nan  # frames without a face
    known = np.isfinite(gaps_T)
    assert live.amount(gaps_T, true_T).deviation == pytest.approx(third_T[known].std() / true_T[known].std())
    assert np.isnan(live.amount(third_T, np.ones(50))).all()


def test_least_open_is_of_the_median() -> None:
    ratio_T = np.full(40, 0.3)
    ratio_T[20] = 0.09
    assert live.least_open(ratio_T) == pytest.approx(0.3)
    assert np.isnan(live.least_open(np.full(5, np.nan)))
