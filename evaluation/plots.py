"""Distributions over clips, one picture for each metric: a mean can hide that a few clips fail."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evaluation.metrics import ARROWS, METRICS
from evaluation.store import ClipResult

DOTS = {"s": 9, "alpha": 0.5, "linewidths": 0}


def plot_distributions(folder: Path, results: dict[str, list[ClipResult]]) -> None:
    """FOLDER/METRIC.png for every metric that any clip has: a line for each row, a dot a clip, a bar at the mean."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, metric in METRICS.items():
        columns = {
            row: [clip.metrics[name] for clip in clips if name in clip.metrics] for row, clips in results.items()
        }
        columns = {row: np.array(values) for row, values in columns.items() if values}
        if not columns:
            continue
        figure = Figure(figsize=(7, 0.8 + 0.4 * len(columns)), layout="constrained")
        axes = figure.subplots()
        for place, (row, values) in enumerate(columns.items()):
            spread = np.random.default_rng(place).uniform(-0.25, 0.25, len(values))  # equal values stay visible
            axes.scatter(values, place + spread, label=row, **DOTS)
            axes.plot([values.mean()] * 2, [place - 0.4, place + 0.4], color="black")
        axes.set_yticks(range(len(columns)), list(columns))
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric.title} {ARROWS[metric.better]}: {metric.about}", fontsize=8)
        axes.grid(axis="x", alpha=0.3)
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
