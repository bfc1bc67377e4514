"""From the numbers of clips to tables: means with intervals, results.json, results.md, plots.

Letters: N clip or frame, F feature.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np

from datasets.files import write_atomically
from engine.command import commit
from engine.config import Count, CountOrNone
from evaluation.bootstrap import interval
from evaluation.metrics import ARROWS, METRICS, Metric
from evaluation.protocol import PROTOCOL, Evaluation
from evaluation.rows import TRUTH, Row
from evaluation.scores.fidelity import frechet_inception_distance
from evaluation.scores.liveliness import pose_velocity_distance
from evaluation.scores.score import ONE_FRAME
from evaluation.store import ClipResult, Store


@dataclass(frozen=True)
class BootstrapConfig:
    """How intervals are drawn."""

    samples: Count = 1000  # sets of identities
    seed: CountOrNone = 0


@dataclass(frozen=True)
class Number:
    """One cell of a table."""

    mean: float  # over clips, or the number of the whole set
    low: float | None  # 95 % interval of the mean; None where there is none
    high: float | None
    clips: int  # how many have this number


@dataclass
class RowSummary:
    """One row of the tables."""

    about: str
    clips: int = 0
    numbers: dict[str, Number] = field(default_factory=dict)  # metric -> number
    missing: dict[str, str] = field(default_factory=dict)  # metric -> why there is none
    exempt: list[str] = field(default_factory=list)  # metrics that say nothing here


def summarise(
    evaluation: Evaluation, results: dict[str, list[ClipResult]], bootstrap: BootstrapConfig
) -> dict[str, RowSummary]:
    """One summary a row, in order."""
    summaries = {}
    for row in evaluation.rows:
        clips = results[row.name]
        summary = RowSummary(row.about, len(clips), exempt=[name for name in METRICS if name in row.exempt])
        for name, metric in METRICS.items():
            if name in row.exempt:
                continue
            if metric.over == "clip":
                _mean_over_clips(summary, name, clips, bootstrap)
            elif name in evaluation.networks.missing:
                summary.missing[name] = evaluation.networks.missing[name]
            else:
                _over_set(summary, metric, row, clips, evaluation.store)
        summaries[row.name] = summary
    return summaries


def _mean_over_clips(summary: RowSummary, name: str, clips: list[ClipResult], bootstrap: BootstrapConfig) -> None:
    having = [clip for clip in clips if name in clip.metrics]
    if not having:
        summary.missing[name] = mode(clip.missing[name] for clip in clips)  # the commonest reason
        return
    values = np.array([clip.metrics[name] for clip in having])
    limits = interval(values, [clip.identity for clip in having], bootstrap.samples, bootstrap.seed)
    summary.numbers[name] = Number(float(values.mean()), *(limits or (None, None)), len(having))


def _over_set(summary: RowSummary, metric: Metric, row: Row, clips: list[ClipResult], store: Store) -> None:
    """The number of all clips of a row together, against the true ones as far as the row's clips go."""
    if all(clip.frames < 2 for clip in clips):
        summary.missing[metric.name] = ONE_FRAME
        return
    read, distance, otherwise = SETS[metric.name]
    names = [clip.clip for clip in clips]
    generated, true = read(store, row.name, names), read(store, TRUTH.name, names)
    if generated is None or true is None:
        summary.missing[metric.name] = "a clip has no head pose"
        return
    value = distance(generated, [whole[: len(part)] for whole, part in zip(true, generated, strict=True)])
    if np.isfinite(value):
        summary.numbers[metric.name] = Number(value, None, None, len(clips))
    else:
        summary.missing[metric.name] = otherwise


def _fid(generated: list[np.ndarray], true: list[np.ndarray]) -> float:
    true_NF, generated_NF = np.concatenate(true), np.concatenate(generated)
    return frechet_inception_distance(true_NF, generated_NF) if len(true_NF) > 1 else float("nan")


SETS = {  # metric -> how it reads a row's clips from the store, compares them with the true ones, and why it may not
    "fid": (Store.inception, _fid, "fewer than two frames beside the given ones"),
    "pose_velocity": (Store.head_poses, pose_velocity_distance, "the true heads do not move, or for two frames only"),
}


def write_reports(
    output: Path,
    summaries: dict[str, RowSummary],
    missing_rows: dict[str, str],
    results: dict[str, list[ClipResult]],
    facts: dict[str, Any],
) -> None:
    """results.json, results.md and plots.

    Args:
        missing_rows: row -> why it was not computed.
        facts: what else belongs into results.json (configuration, hashes, notes on the data ...).
    """
    from evaluation.plots import plot_distributions

    document = {
        "protocol": PROTOCOL,
        "commit": commit(),
        **facts,
        "metrics": {name: asdict(metric) for name, metric in METRICS.items()},
        "rows": {name: asdict(summary) for name, summary in summaries.items()},
        "rows_not_computed": missing_rows,
        "clips": {row: [asdict(clip) for clip in clips] for row, clips in results.items()},
    }
    write_atomically(output / "results.json", (json.dumps(document, indent=1) + "\n").encode())
    write_atomically(output / "results.md", markdown(document, summaries, missing_rows).encode())
    plot_distributions(output / "plots", results)


def markdown(document: dict[str, Any], summaries: dict[str, RowSummary], missing_rows: dict[str, str]) -> str:
    """The tables, and below them what is missing and why."""
    first = next(iter(summaries.values()))
    lines = [
        "# Results",
        "",
        f"{first.clips} clips of {document['identities']} identities; {document['data']}. Protocol {PROTOCOL} "
        f"(docs/EVALUATION.md), commit {document['commit']}.",
        "Mean over clips and, in brackets, the 95 % bootstrap interval over identities.",
        "– says nothing in this row; ? could not be computed, see below.",
    ]
    for table in dict.fromkeys(metric.table for metric in METRICS.values()):
        columns = [metric for metric in METRICS.values() if metric.table == table]
        lines += ["", f"## {table}", ""]
        lines.append("| | " + " | ".join(f"{metric.title} {ARROWS[metric.better]}" for metric in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for name, summary in summaries.items():
            lines.append(f"| {name} | " + " | ".join(cell(summary, metric) for metric in columns) + " |")
    lines += ["", "## Rows", ""]
    lines += [f"- {name}: {summary.about}" for name, summary in summaries.items()]
    lines += [f"- {name}: not computed: {reason}" for name, reason in missing_rows.items()]
    if reasons := missing_reasons(summaries):
        lines += ["", "## Not computed", ""]
        lines += [f"- {reason}" for reason in reasons]
    if notes := document["notes"]:
        lines += ["", "## Notes", ""]
        lines += [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def cell(summary: RowSummary, metric: Metric) -> str:
    """ "21.19 [20.87, 21.40]", "–" or "?"."""
    if metric.name in summary.exempt:
        return "–"
    number = summary.numbers.get(metric.name)
    if number is None:
        return "?"
    text = f"{number.mean:.{metric.digits}f}"
    if number.low is not None:
        text += f" [{number.low:.{metric.digits}f}, {number.high:.{metric.digits}f}]"
    return text + (f" ({number.clips} of {summary.clips})" if number.clips < summary.clips else "")


def missing_reasons(summaries: dict[str, RowSummary]) -> list[str]:
    """ "LPIPS: needs FILE" for every metric that is missing in all rows, with the rows where it is missing in some."""
    sentences = []
    for name, metric in METRICS.items():
        rows: dict[str, list[str]] = {}
        for row, summary in summaries.items():
            if name in summary.missing:
                rows.setdefault(summary.missing[name], []).append(row)
        about = sum(name not in summary.exempt for summary in summaries.values())
        for reason, where in rows.items():
            place = "" if len(where) == about else f" ({', '.join(where)})"
            sentences.append(f"{metric.title}{place}: not computed: {reason}")
    return sentences
