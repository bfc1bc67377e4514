"""Typed configuration: what is accepted, and what the errors say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from engine.config import ConfigError, from_dict, load, save, to_dict


@dataclass(frozen=True)
class Optim:
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, found {self.lr}")


@dataclass(frozen=True)
class Config:
    root: str
    optim: Optim = Optim()
    extra: Optim | None = None
    loss: Literal["ssim", "l1"] = "ssim"
    workers: int = 2
    jacobians: bool = True


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_file_and_overrides_are_merged_in_this_order(tmp_path):
    path = write(tmp_path, "root: a\noptim: {lr: 0.1}\nextra: {lr: 3}\n")
    config = load(Config, path, ["optim.lr=0.2", "workers=4", "jacobians=false", "optim.betas=[0.9, 0.99]"])
    assert config == Config("a", Optim(0.2, (0.9, 0.99)), Optim(3.0), "ssim", 4, False)


def test_saved_config_reads_back_equal(tmp_path):
    config = Config("größe", Optim(1e-5), Optim(), "l1")
    save(config, tmp_path / "c.yaml")
    assert load(Config, tmp_path / "c.yaml") == config
    assert from_dict(Config, to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("root: a\nworkrs: 3", [], ["unknown key workrs", "did you mean workers"]),
        ("root: a\noptim: {lrr: 1.0}", [], ["unknown key optim.lrr", "did you mean optim.lr"]),
        ("root: a\nextra: {beta: [0, 1]}", [], ["unknown key extra.beta", "extra.betas"]),
        ("root: a", ["optim.lrs=1"], ["and command line: unknown key optim.lrs", "optim.lr"]),
        ("workers: 2", [], ["root", "required"]),
        ("root: a\nworkers: two", [], ["workers", "'two'"]),
        ("root: a\nworkers: 2.5", [], ["workers", "2.5"]),
        ("root: a\njacobians: 1", [], ["jacobians"]),
        ("root: a\noptim: {lr: 1e-4}", [], ["optim.lr", "text", "1.0e-4"]),
        ("root: a\noptim: {lr: -1.0}", [], ["optim", "lr must be positive"]),
        ("root: a\nloss: l2", [], ["loss", "'ssim' or 'l1'"]),
        ("root: a\noptim: 3", [], ["optim", "section"]),
        ("- a\n- b", [], ["key: value"]),
        ("root: [", [], ["not valid YAML"]),
        ("root: a\nworkers: 2\nworkers: 3", [], ["config.yaml", "workers stands there twice, line 3, column 1"]),
        ("root: a\noptim:\n  lr: 1.0\n  lr: 1.0", [], ["lr stands there twice, line 4"]),
        ("root: a", ["optim={lr: 1.0, lr: 2.0}"], ["optim=", "lr stands there twice"]),
        ("root: a", ["root=[1"], ["root=[1", "not valid YAML"]),
        ("root: 2026-13-45", [], ["not valid YAML", "month"]),
        ("root: &a [*a]", [], ["not valid YAML", "Circular"]),
        ("optim: &a {extra: *a}", [], ["not valid YAML", "Circular"]),
        ("base: config.yaml\nroot: a", [], ["config.yaml: base config.yaml leads back to itself"]),
        ("root: a", ["lr"], ["section.key=value"]),
        ("root: a", ["root.x=1"], ["is a value, not a section"]),
    ],
)
def test_mistakes_are_named(tmp_path, text, overrides, words):
    with pytest.raises(ConfigError) as caught:
        load(Config, write(tmp_path, text), overrides)
    for word in words:
        assert word in str(caught.value)


def test_a_merged_section_may_overrule_what_it_merges(tmp_path):
    """That is no key that stands twice."""
    text = "root: a\noptim: &a {lr: 0.1, betas: [0.5, 0.9]}\nextra: {<<: *a, lr: 0.2}\n"
    assert load(Config, write(tmp_path, text)).extra == Optim(0.2, (0.5, 0.9))


def test_bases_that_lead_in_a_circle_are_refused(tmp_path):
    (tmp_path / "b.yaml").write_text("base: config.yaml\n")
    with pytest.raises(ConfigError, match=r"b\.yaml: base config\.yaml leads back to itself"):
        load(Config, write(tmp_path, "base: b.yaml\nroot: a"))


def test_missing_file_names_the_nearest_one(tmp_path):
    write(tmp_path, "root: a")
    with pytest.raises(ConfigError, match=r"did you mean config.yaml"):
        load(Config, tmp_path / "confg.yaml")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["optim.lr", "optim.betas"])
def test_numbers_are_finite_in_every_configuration(tmp_path, key, value):
    path = write(tmp_path, "root: a\n")
    text = f"{key}=[0.5, {value}]" if key == "optim.betas" else f"{key}={value}"
    with pytest.raises(ConfigError, match=f"{key} must be a finite number"):
        load(Config, path, [text])
