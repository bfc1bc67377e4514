"""The rows of a table: the true videos, the variants of Table 2 and Sec. 5.4, and floors that any claim must beat."""

from dataclasses import dataclass
from typing import Literal

from evaluation.metrics import METRICS

RowName = Literal[
    "full",
    "gt-head",
    "gt-keypoint",
    "l1",
    "no-set",
    "no-jacobian",
    "one-stage",
    "still",
    "wrong-audio",
    "wrong-audio-generated",
    "other-keypoints",
]

HEARD = frozenset(
    {"opening_loudness", "lse_c", "lse_d", "av_offset", "beat_alignment"}
)  # what depends on the sound that goes with a video
HELD_AGAINST = frozenset(metric.name for metric in METRICS.values() if metric.held_against)


@dataclass(frozen=True)
class Row:
    """Attributes:
    name: key in results.json and name of its folders.
    about: one line for the reader.
    exempt: metrics that say nothing here, being perfect by construction.
    replaces: the network that comes from a checkpoint of its own (`variants` of the configuration).
    needs: networks without which the row cannot be made.
    other: whether another identity's clip has a part in it.
    generated: whether its frames are of our making: only those are stored as videos, marked as synthetic.
    """

    name: str
    about: str
    exempt: frozenset[str] = frozenset()
    replaces: str | None = None
    needs: tuple[str, ...] = ()
    other: bool = False
    generated: bool = True


STAGE_ONE = ("keypoint_detector", "image_generator")
ALL = (*STAGE_ONE, "head_motion_predictor", "motion_field_generator")
# Known where the true head poses are given.
POSES = frozenset({"he", "pose_velocity", "spectrum", "diversity", "beat_alignment"})

TRUTH = Row("truth", "the true videos with their own sound", HELD_AGAINST, generated=False)
GENERATED = Row("generated", "the given videos", generated=False)
ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("full", "first frame and sound, all networks", needs=ALL),
        Row("gt-head", "true head poses, keypoints by N_M (Table 2)", POSES, needs=(*STAGE_ONE, ALL[3])),
        Row("gt-keypoint", "N_D's keypoints of the true frames (Table 2)", POSES | {"ke"}, needs=STAGE_ONE),
        Row("l1", "N_H trained with L1 in the place of SSIM (Sec. 5.4)", replaces=ALL[2], needs=ALL),
        Row("no-set", "N_H without spatial embedding transition (Sec. 5.4)", replaces=ALL[2], needs=ALL),
        Row("no-jacobian", "N_M without Jacobians (Sec. 5.4)", replaces=ALL[3], needs=ALL),
        Row("one-stage", "N_M after its first phase only (Sec. 5.4)", replaces=ALL[3], needs=ALL),
        Row("still", "floor: the first frame repeated"),
        Row(
            "wrong-audio",
            "floor: the true frames with another identity's sound",
            frozenset(METRICS) - HEARD,
            other=True,
            generated=False,
        ),
        Row("wrong-audio-generated", "floor: the full model driven by another identity's sound", needs=ALL, other=True),
        Row("other-keypoints", "floor: N_D's keypoints of another identity's clip", needs=STAGE_ONE, other=True),
    )
}
FOREIGN_FLOORS = ("still", "wrong-audio")  # rows that can be made without any network of ours
