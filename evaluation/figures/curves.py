"""Head motion in one dimension (Figs. 7 and 9): the curves, and the picture of them.

Letters: T video frame (25 fps), P pose value (rad, mm), H W C picture (RGB, uint8).
"""

from collections.abc import Mapping

import numpy as np

from datasets.media.streams import FPS
from datasets.pose import PoseRange
from evaluation import rows

TRUTH = rows.TRUTH.name
BOX_S = 1.0  # Fig. 7: the time from which frames are shown
PLOT_DPI, PLOT_WIDTH = 110, 1400  # pixels


def in_one_dimension(poses: Mapping[str, np.ndarray], pose_range: PoseRange) -> tuple[dict[str, np.ndarray], float]:
    """Head motions along the direction in which the true head moves most (Sec. 5.3: "by PCA").

    The paper does not say how rad and mm were weighed; here each axis is scaled by the corpus's range, as the networks
    see it. The direction and the origin are the truth's alone, and the direction's largest part is positive.

    Args:
        poses: name -> [T, 6] rad and mm, with TRUTH.

    Returns: name -> [T] in units of half a pose range; the share of the truth's variance along this direction.
    """
    scaled = {name: pose_range.normalise(pose_TP).astype(np.float64) for name, pose_TP in poses.items()}
    mean_P = scaled[TRUTH].mean(0)
    _, strength, directions = np.linalg.svd(scaled[TRUTH] - mean_P, full_matrices=False)
    direction_P = directions[0] * np.sign(directions[0][np.abs(directions[0]).argmax()])
    share = float(strength[0] ** 2 / max((strength**2).sum(), 1e-12))
    return {name: (pose_TP - mean_P) @ direction_P for name, pose_TP in scaled.items()}, share


def liveliest(curve_T: np.ndarray) -> tuple[int, int]:
    """First and last + 1 frame of the second in which a curve covers the most distance; all of a shorter one."""
    length = min(round(BOX_S * FPS), len(curve_T))
    steps_T = np.abs(np.diff(curve_T))
    covered = np.convolve(steps_T, np.ones(max(1, length - 1)), "valid") if len(steps_T) else np.zeros(1)
    start = int(covered.argmax())
    return start, start + length


def plot_curves(
    curves: Mapping[str, np.ndarray],
    share: float,
    loudness_T: np.ndarray,
    box: tuple[int, int] | None = None,
    width: int = PLOT_WIDTH,
) -> np.ndarray:
    """A panel for each different motion with the truth in grey behind it, at the top the sound's level -> [H, W, 3].

    Variants that move alike (those that share head poses) share a panel, whose title names them all.

    Args:
        curves: name -> [T], with TRUTH. box: frames to be marked. width: of the picture, pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = different(curves)
    figure = Figure(figsize=(width / PLOT_DPI, 1.5 + 1.7 * len(panels)), dpi=PLOT_DPI, layout="constrained")
    figure.suptitle(f"Head motion along the true motion's first principal component ({share:.0%} of its variance)")
    plots = figure.subplots(len(panels) + 1, sharex=True, height_ratios=[0.6] + [1] * len(panels))
    time_T = np.arange(len(loudness_T)) / FPS
    plots[0].fill_between(time_T, loudness_T, loudness_T.min(), color="0.6", linewidth=0)
    plots[0].set_ylabel("sound, dB")
    for plot, (names, curve_T) in zip(plots[1:], panels, strict=True):
        true = TRUTH in names
        if not true:
            plot.plot(time_T, curves[TRUTH], color="0.6", linewidth=1.4)
        colour = (rows.TRUTH if true else rows.ROWS[names[0]]).colour
        plot.plot(time_T, curve_T, color=colour, linewidth=2)
        plot.set_title(" = ".join(names) + ("" if true else "   (grey: truth)"), loc="left", color=colour)
        plot.set_ylabel("scaled pose")
        plot.sharey(plots[1])
    if box is not None:
        for plot in plots:
            plot.axvspan(box[0] / FPS, (box[1] - 1) / FPS, color="tab:blue", alpha=0.15, linewidth=0)
    plots[-1].set_xlabel("time, s")
    plots[-1].set_xlim(0, max(time_T[-1], 1 / FPS))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def different(curves: Mapping[str, np.ndarray]) -> list[tuple[list[str], np.ndarray]]:
    """Names that share one curve, and that curve, in the order given."""
    groups: list[tuple[list[str], np.ndarray]] = []
    for name, curve_T in curves.items():
        for names, other_T in groups:
            if np.allclose(curve_T, other_T, atol=1e-4):
                names.append(name)
                break
        else:
            groups.append(([name], curve_T))
    return groups
