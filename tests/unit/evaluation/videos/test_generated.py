"""What decides the numbers of a generated video."""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest

from animation.options import AnimationOptions
from evaluation.rows import ROWS
from evaluation.videos.generated import SPEED, Generated


def made_with(options: AnimationOptions) -> dict[str, str]:
    videos = SimpleNamespace(options=options, base=SimpleNamespace(dtype=None), weights={}, checkpoints={"full": []})
    return Generated.made_with(videos, ROWS["full"], "clip")


OTHER = {"seed": 1, "crop": "none", "head_motion_scale": 0.5, "still": True, "expression_scale": 2.0, "crf": 20}
OTHER |= {"head_return": 2.0}
OTHER |= {"face": 1, "view": "square", "size": 256, "background": "teal", "look_ahead": 8, "blink": "off"}
OTHER |= {"keypoint_mode": "relative", "label": True, "device": "cpu", "batch_size": 3, "compile": True}


@pytest.mark.parametrize("name", [field.name for field in fields(AnimationOptions) if field.name != "precision"])
def test_every_option_but_those_of_speed_decides_a_result(name):
    default = AnimationOptions()
    changed = made_with(replace(default, **{name: OTHER[name]})) != made_with(default)
    assert changed == (name not in SPEED)
