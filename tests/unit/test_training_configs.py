"""Every file of config/ is valid, and the paper's numbers are where the paper has them."""

from pathlib import Path
from typing import Any

import pytest

import train_fomm
import train_headpose
import train_motionfield
from engine.config import ConfigError, load

CONFIGS = Path(__file__).parents[2] / "config"
RELEASED = "assets/demo.safetensors"  # the weights that come with the project, which a recipe may go on from
STAGES = {"fomm": train_fomm, "headpose": train_headpose, "motionfield": train_motionfield}


def training_configs() -> list[Path]:
    """All but those of evaluate.py, and options of a recipe's weights."""
    others = ("evaluate", "animation")
    return [path for path in sorted(CONFIGS.rglob("*.yaml")) if not path.stem.startswith(others)]


def load_training(path: Path) -> Any:
    """As the script does that the file is for: `fomm_vox`, `demo/01_fomm` -> train_fomm.py."""
    return load(STAGES[path.stem.lstrip("0123456789_").split("_")[0]].Config, path)


@pytest.mark.parametrize("path", training_configs(), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_file_is_valid_and_its_run_has_its_name(path: Path) -> None:
    assert load_training(path).run.dir == f"runs/{path.relative_to(CONFIGS).with_suffix('')}"


def test_every_run_that_a_file_goes_on_from_is_that_of_another_file() -> None:
    configs = [load_training(path) for path in training_configs()]
    runs = {config.run.dir for config in configs} | {RELEASED}
    for config in configs:
        before = {config.initial_weights, config.fomm.checkpoint if hasattr(config, "fomm") else ""} - {""}
        assert before <= runs - {config.run.dir}, config.run.dir


def test_the_demo_models_recipe_is_in_the_order_of_its_numbers() -> None:
    paths = [path for path in training_configs() if path.parent.name == "demo"]
    assert [path.name[:3] for path in paths] == [f"{number:02}_" for number in range(1, len(paths) + 1)]
    done = {RELEASED}
    for path in paths:
        config = load_training(path)
        assert {config.initial_weights, config.fomm.checkpoint if hasattr(config, "fomm") else ""} <= done | {""}
        done.add(config.run.dir)


def test_the_papers_settings() -> None:
    fomm = load(train_fomm.Config, CONFIGS / "fomm_vox.yaml")
    head = load(train_headpose.Config, CONFIGS / "headpose_vox.yaml")
    field = load(train_motionfield.Config, CONFIGS / "motionfield_vox.yaml")
    pixels = load(train_motionfield.Config, CONFIGS / "motionfield_vox_pixels.yaml")
    lrw = load(train_motionfield.Config, CONFIGS / "motionfield_lrw.yaml")
    for config in (fomm, head, field, pixels, lrw):  # Sec. 4.2
        assert (config.optim.lr, config.optim.weight_decay) == (2e-4, 2e-6)
    assert (fomm.optim.batch_size, head.optim.batch_size, field.optim.batch_size) == (28, 64, 4)
    weights = fomm.weights
    assert (weights.perceptual, weights.equivariance_position, weights.equivariance_jacobian) == (10, 10, 10)
    assert not (weights.adversarial or weights.pixel or weights.gradient or weights.ssim or weights.mouth)
    assert (head.data.window, head.weights.ssim, head.weights.adversarial, head.weights.l1) == (256, 1, 1, 0)
    assert head.ssim.statistics == "map"
    assert field.motion_field_generator.window == 64 and lrw.motion_field_generator.window == 32
    assert (field.keypoints.heatmap, field.keypoints.position, field.keypoints.jacobian) == (1, 10, 10)
    eq7 = pixels.pixels
    assert (eq7.position, eq7.perceptual, eq7.equivariance_position, eq7.equivariance_jacobian) == (100, 10, 10, 10)
    assert pixels.pixels.vgg.network == "vgg16" and fomm.vgg.network == "vgg19"
    # "N_H is trained on VoxCeleb"; VoxCeleb and GRID are one group for N_D, N_I and N_M.
    assert head.data.root == "data/vox" and {c.data.root for c in (fomm, field, pixels)} == {"data/vox_grid"}
    assert fomm.image_generator.align_corners
    no_set = load_training(CONFIGS / "ablations" / "headpose_vox_noset.yaml")
    assert not no_set.head_motion_predictor.spatial_embedding_transition
    assert not load_training(CONFIGS / "ablations" / "motionfield_vox_nojacobian.yaml").motion_field_generator.jacobians


def test_a_base_is_laid_under(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("run: {dir: a, max_steps: 5}\noptim: {lr: 0.5}\n")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nrun: {dir: b}\n")
    config = load(train_headpose.Config, tmp_path / "above.yaml", ["optim.batch_size=2"])
    assert (config.run.dir, config.run.max_steps, config.optim.lr, config.optim.batch_size) == ("b", 5, 0.5, 2)


def test_configurations_that_cannot_work_are_refused() -> None:
    path = CONFIGS / "headpose_tiny.yaml"
    with pytest.raises(ConfigError, match=r"data\.window must be at least 32"):
        load(train_headpose.Config, path, ["data.window=16"])
    with pytest.raises(ConfigError, match="must be equal"):
        load(train_fomm.Config, CONFIGS / "fomm_tiny.yaml", ["keypoint_detector.num_keypoints=5"])
    for overrides in (["pixels.lips=1"], ["keypoints=null"]):  # both phases; none
        with pytest.raises(ConfigError, match="give one of the sections keypoints"):
            load(train_motionfield.Config, CONFIGS / "motionfield_tiny.yaml", overrides)
    with pytest.raises(ConfigError, match=r"did you mean weights\.adversarial"):
        load(train_headpose.Config, path, ["weights.adverserial=1"])


@pytest.mark.parametrize(
    ("config", "override", "words"),
    [
        ("fomm_tiny", "validation.pairs=0", r"validation\.pairs: .*greater than or equal to 1, found 0"),
        ("fomm_tiny", "validation.batch_size=0", r"validation\.batch_size: .*equal to 1, found 0"),
        ("fomm_tiny", "pyramid=[]", "pyramid must be 1/n .* found none"),
        ("fomm_tiny", "pyramid=[1.0, 1.7]", r"pyramid must be 1/n with a whole n, found 1\.0, 1\.7"),
        ("fomm_tiny", "pyramid=[0.3]", r"pyramid must be 1/n with a whole n, found 0\.3"),
        ("fomm_tiny", "pyramid=[0.0]", r"pyramid must be 1/n with a whole n, found 0\.0"),
        ("fomm_tiny", "true_openings=1.5", r"true_openings: .*equal to 1, found 1\.5"),
        ("fomm_tiny", "optim.betas=[1.5, 2]", r"optim\.betas must both be from 0 to below 1, found \[1\.5, 2"),
        ("headpose_tiny", "validation.clips=0", r"validation\.clips: .*equal to 1, found 0"),
        ("headpose_tiny", "image_size=0", "image_size: .*equal to 1, found 0"),
        ("motionfield_tiny", "targets.batch_size=0", r"targets\.batch_size: .*equal to 1, found 0"),
        ("motionfield_tiny", "validation.clips=0", r"validation\.clips: .*equal to 1, found 0"),
        ("motionfield_tiny", "validation.rendered=0", r"validation\.rendered: .*equal to 1, found 0"),
        ("motionfield_tiny", "keypoints.heatmap_hold_steps=-1", r"heatmap_hold_steps: .*equal to 0, found -1"),
        ("motionfield_tiny_pixels", "pixels.rendered_frames=0", r"pixels\.rendered_frames: .*equal to 1, found 0"),
        ("motionfield_tiny_pixels", "pixels.pyramid=[]", r"pixels\.pyramid must be 1/n .* found none"),
        ("fomm_tiny", "keypoint_detector.block_expansion=0", "keypoint_detector: block_expansion must be at least 1"),
        ("fomm_tiny", "keypoint_detector.scale_factor=0.0", "keypoint_detector: scale_factor must be 1/n .*found 0"),
        ("fomm_tiny", "image_generator.image_size=0", "image_generator: image_size must be at least 1, found 0"),
        ("fomm_tiny", "image_generator.dense_motion.num_blocks=0", r"dense_motion: num_blocks must be .*1, found 0"),
        ("fomm_tiny", "discriminator.scales=[0.7]", r"discriminator: scales must be 1/n with a whole n, found 0\.7"),
        ("fomm_tiny", "part_reader.width=0", "part_reader: width must be at least 1, found 0"),
        ("headpose_tiny", "head_motion_predictor.lstm_layers=0", "lstm_layers must be at least 1, found 0"),
        ("headpose_tiny", "head_motion_predictor.resnet_depths=[]", "resnet_depths must each be at least 1, found"),
        ("headpose_tiny", "discriminator.max_width=0", "discriminator: max_width must be at least 1, found 0"),
        ("motionfield_tiny", "motion_field_generator.max_features=0", "max_features must be at least 1, found 0"),
    ],
)
def test_a_value_out_of_its_limits_is_named(config: str, override: str, words: str) -> None:
    path = CONFIGS / f"{config}.yaml"
    with pytest.raises(ConfigError, match=words):
        load(STAGES[config.split("_")[0]].Config, path, [override])
