"""Options of inference: the command line is made from the fields, and says what they say."""

import argparse
from dataclasses import fields, replace

import pytest

from animation.options import AnimationOptions, OptionError, add_arguments, given
from engine.config import ConfigError, load


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser.add_argument_group("options"))
    return parser.parse_args(arguments)


def test_every_field_is_an_argument_with_a_text():
    assert vars(parsed()).keys() == {each.name for each in fields(AnimationOptions)}
    assert all(each.metadata["help"] for each in fields(AnimationOptions))


def test_only_what_is_given_goes_before_the_file(tmp_path):
    (tmp_path / "o.yaml").write_text("crf: 30\ncompile: true\nexpression_scale: 2.0\n")
    arguments = parsed("--crf", "20", "--head-motion-scale", "0.5", "--keypoint-mode", "relative", "--label")
    options = load(AnimationOptions, tmp_path / "o.yaml", given(arguments))
    changes = {"crf": 20, "compile": True, "expression_scale": 2.0, "head_motion_scale": 0.5, "label": True}
    assert options == replace(AnimationOptions(), **changes, keypoint_mode="relative")


def test_texts_that_look_like_other_types_stay_texts():
    assert load(AnimationOptions, None, given(parsed("--device", "1"))).device == "1"


@pytest.mark.parametrize(
    "option",
    [
        ("--crf", "52"),
        ("--batch-size", "-1"),
        ("--size", "31"),
        ("--size", "8193"),
        ("--blink", "0"),
        ("--blink", "often"),
    ],
)
def test_values_out_of_range_are_refused(option):
    with pytest.raises(ConfigError, match=f"{option[0][2:].replace('-', '_')} must be"):
        load(AnimationOptions, None, given(parsed(*option)))


@pytest.mark.parametrize(
    ("given_blink", "in_file", "rate"),
    [
        ("auto", "auto", 32),
        ("off", "off", 0),
        ("12", "12", 12),
        ("7.5", "7.5", 7.5),
        ("+5.", "5", 5),
        ("1e1", "10", 10),
    ],
)
def test_blinks_are_a_word_or_a_rate_on_the_command_line_as_in_the_file(tmp_path, given_blink, in_file, rate):
    (tmp_path / "o.yaml").write_text(f"blink: {in_file}\n")
    options = load(AnimationOptions, None, given(parsed("--blink", given_blink)))
    assert options.blink_rate(lids=True) == rate == load(AnimationOptions, tmp_path / "o.yaml").blink_rate(lids=True)


def test_less_than_one_blink_a_minute_is_taken_and_the_sentence_says_so():
    assert load(AnimationOptions, None, given(parsed("--blink", "0.5"))).blink_rate(lids=True) == 0.5
    with pytest.raises(ConfigError, match="more than 0 and at most 100; found 101"):
        load(AnimationOptions, None, given(parsed("--blink", "101")))


def test_a_model_without_lids_does_not_blink():
    assert AnimationOptions().blink_rate(lids=False) == 0 == AnimationOptions(blink="off").blink_rate(lids=False)
    with pytest.raises(OptionError, match="no keypoints of lids; leave --blink out"):
        AnimationOptions(blink=20.0).blink_rate(lids=False)
