"""The rows of a table: the true videos, the variants of Table 2 and Sec. 5.4, and floors that any claim must beat.

A row is data: its fields alone decide how its videos are made, scored and drawn. A new row is an entry of `_ROWS`.
"""

from dataclasses import dataclass, make_dataclass
from typing import Literal

from evaluation.metrics import METRICS, Part

STAGE_ONE = ("keypoint_detector", "image_generator")
HEAD, FIELD = "head_motion_predictor", "motion_field_generator"


@dataclass(frozen=True)
class Row:
    """How the videos of one row come about.

    "own" is the clip's own, "other" that of the next clip of another identity (`evaluation.protocol.strangers`).
    """

    name: str  # key in results.json and name of its folders
    about: str  # one line for the reader
    frames: Literal["generated", "given", "true", "first"] = "generated"  # first: the first true frame repeated
    sound: Literal["own", "other"] = "own"  # what generated frames are driven by, and what true frames are heard with
    poses: Literal["predicted", "true"] = "predicted"  # N_H's from the sound, or the true ones
    keypoints: Literal["predicted", "own", "other"] = "predicted"  # N_M's, or N_D's of true frames (with their poses)
    replaces: str | None = None  # the network that comes from a checkpoint of its own (`VariantPaths`)
    colour: str = "C0"  # of its curve in Figs. 7 and 9, as matplotlib names it

    @property
    def key(self) -> str:
        """The row's name in configurations, where keys are identifiers."""
        return self.name.replace("-", "_")

    @property
    def needs_other(self) -> bool:
        """Whether another identity's clip has a part in it."""
        return "other" in (self.sound, self.keypoints)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that make its frames."""
        if self.frames != "generated":
            return ()
        if self.keypoints != "predicted":
            return STAGE_ONE
        return (*STAGE_ONE, FIELD) if self.poses == "true" else (*STAGE_ONE, HEAD, FIELD)

    @property
    def ours(self) -> bool:
        """Whether its frames are of our making: only those are stored as videos, marked as synthetic."""
        return self.frames in ("generated", "first")

    @property
    def exempt(self) -> frozenset[str]:
        """Metrics that say nothing in this row, because all that decides them is taken from the truth.

        In the row of the true videos itself, whose numbers the others are read against, only those that compare a video
        with its truth.
        """
        taken = self._taken_from_truth()
        if self.frames == "true" and "sound" in taken:
            return frozenset(metric.name for metric in METRICS.values() if metric.compares)
        return frozenset(metric.name for metric in METRICS.values() if taken.issuperset(metric.of))

    def _taken_from_truth(self) -> set[Part]:
        """Generated frames are scored with the clip's own sound, whatever drove them."""
        if self.frames == "true":
            return {"frames", "face", "poses", "keypoints", *(["sound"] if self.sound == "own" else [])}
        if self.frames != "generated" or self.poses == "predicted" or self.keypoints == "other":
            return {"sound"}
        return {"sound", "poses", *(["keypoints"] if self.keypoints == "own" else [])}


TRUTH = Row("truth", "the true videos with their own sound", frames="true", colour="black")
GIVEN = Row("generated", "the given videos", frames="given")
_ROWS = (
    Row("full", "first frame and sound, all networks"),
    Row("gt-head", "true head poses, keypoints by N_M (Table 2)", poses="true", colour="C2"),
    Row("gt-keypoint", "N_D's keypoints of the true frames (Table 2)", poses="true", keypoints="own", colour="C9"),
    Row("l1", "N_H trained with L1 in the place of SSIM (Sec. 5.4)", replaces=HEAD, colour="C3"),
    Row("no-set", "N_H without spatial embedding transition (Sec. 5.4)", replaces=HEAD, colour="C4"),
    Row("no-jacobian", "N_M without Jacobians (Sec. 5.4)", replaces=FIELD, colour="C1"),
    Row("one-stage", "N_M after its first phase only (Sec. 5.4)", replaces=FIELD, colour="C5"),
    Row("still", "floor: the first frame repeated", frames="first", colour="C6"),
    Row(
        "wrong-audio", "floor: the true frames with another identity's sound", frames="true", sound="other", colour="C8"
    ),
    Row(
        "wrong-audio-generated",
        "floor: the full model driven by another identity's sound",
        sound="other",
        colour="navy",
    ),
    Row(
        "other-keypoints",
        "floor: N_D's keypoints of another identity's clip",
        poses="true",
        keypoints="other",
        colour="olive",
    ),
)
ROWS = {row.name: row for row in _ROWS}
RowName = Literal[*ROWS]
FOR_GIVEN = tuple(row.name for row in _ROWS if row.frames != "generated")  # the floors that need no network of ours

# Checkpoints of the rows that replace a network, each holding that network alone; empty: the row is not computed.
VariantPaths = make_dataclass("VariantPaths", [(row.key, str, "") for row in _ROWS if row.replaces], frozen=True)
