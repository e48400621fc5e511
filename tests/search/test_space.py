"""The space: what may be searched, what a draw means, and that mistakes stop a search early."""

import math
from pathlib import Path

import pytest

from components.config import Config, apply_overrides, load_config
from components.config.load import ConfigError
from components.search.space import check_space, default_draw, grid, resolve, trial_config


def config_with(space: dict, **tune: object) -> Config:
    return apply_overrides(
        Config(), {"tune.space": space, **{f"tune.{k}": v for k, v in tune.items()}}
    )


UNIFORM = {"kind": "uniform", "low": 0.1, "high": 0.9}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("threat.rgb.eps", "fixed"),
        ("threat.skeleton.norm", "fixed"),
        ("evaluate.suite", "fixed"),
        ("data.val_subjects", "same clips"),
        ("train.val_steps", "same attack"),
        ("train.val_clips", "same clips"),
        ("train.epochs", "tune.epochs"),
        ("tune.epochs", "itself"),
        ("seed", "lucky"),
        ("shard.size", "earlier stages"),
        ("ray.workers", "earlier stages"),
        ("train.attack", "did you mean"),
        ("train.atack.steps", "did you mean 'train.attack.steps'"),
        ("lr", "did you mean"),
    ],
)
def test_names_that_must_not_be_searched(name: str, word: str) -> None:
    with pytest.raises(ConfigError, match="tune.space") as caught:
        check_space(config_with({name: UNIFORM}))
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "distribution", "word"),
    [
        ("train.ema", {"kind": "uniform", "low": 0.1, "high": 1.5}, "below 1"),
        ("train.ema", {"kind": "uniform", "low": 0.5, "high": 0.5}, "below"),
        ("train.lr", {"kind": "uniform", "low": 0.0, "high": 0.1, "log": True}, "above 0"),
        ("model.fusion", {"kind": "choice", "values": ["amr", "armm"]}, "armm"),
        ("model.fusion", {"kind": "choice", "values": []}, "empty"),
        ("train.method", {"kind": "choice", "values": ["pgd_at", "trade"]}, "trades"),
        ("train.attack.steps", {"kind": "uniform", "low": 1.5, "high": 4.5}, "integer"),
        (
            "train.attack.rgb_eps",
            {"kind": "ratio", "of": "train.lrr", "low": 1, "high": 2},
            "train.lr",
        ),
        (
            "train.attack.rgb_eps",
            {"kind": "ratio", "of": "model.fusion", "low": 1, "high": 2},
            "no number",
        ),
    ],
)
def test_values_that_no_trial_could_have(name: str, distribution: dict, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_space(config_with({name: distribution}))
    assert name in str(caught.value) and word in str(caught.value)


def test_an_empty_space_is_an_error() -> None:
    with pytest.raises(ConfigError, match="empty"):
        check_space(config_with({}))


def test_the_shipped_space_is_valid_and_names_attack_and_fusion() -> None:
    config = load_config(Path(__file__).parents[2] / "params.yaml")
    check_space(config)
    assert any(n.startswith("train.attack.") for n in config.tune.space)
    assert any(n.startswith("model.") for n in config.tune.space)


def test_a_ratio_multiplies_the_other_parameter_of_the_same_trial() -> None:
    config = config_with(
        {
            "train.attack.skeleton_eps": {
                "kind": "ratio", "of": "train.attack.rgb_eps", "low": 0.5, "high": 4.0,
            },
            "train.attack.rgb_eps": {"kind": "uniform", "low": "2/255", "high": "12/255"},
        }
    )  # fmt: skip
    check_space(config)
    values = resolve(config, {"train.attack.skeleton_eps": 2.0, "train.attack.rgb_eps": 0.01})
    assert values == {"train.attack.skeleton_eps": 0.02, "train.attack.rgb_eps": 0.01}
    alone = resolve(config, {"train.attack.skeleton_eps": 2.0})
    assert math.isclose(alone["train.attack.skeleton_eps"], 2 * 8 / 255)
    drawn = default_draw(config)
    assert drawn is not None
    again = resolve(config, drawn)
    assert math.isclose(again["train.attack.skeleton_eps"], 0.05)


def test_lists_survive_the_sampler() -> None:
    config = config_with({"model.fusion_stages": {"kind": "choice", "values": [[], [-1], [1, -1]]}})
    check_space(config)
    points = [resolve(config, point)["model.fusion_stages"] for point in grid(config)]
    assert points == [[], [-1], [1, -1]]
    assert trial_config(config, {"model.fusion_stages": [1, -1]}).model.fusion_stages == (1, -1)
    assert default_draw(config) == {"model.fusion_stages": "[]"}


def test_the_grid_is_complete_and_needs_an_end() -> None:
    config = config_with(
        {
            "train.attack.steps": {"kind": "int", "low": 2, "high": 4},
            "train.ema": {"kind": "uniform", "low": 0.0, "high": 0.2, "q": 0.1},
            "model.fusion": {"kind": "choice", "values": ["amr", "mmtm"]},
        }
    )
    points = list(grid(config))
    assert len(points) == 18 and len({str(p) for p in points}) == 18
    with pytest.raises(ConfigError, match="step q"):
        list(grid(config_with({"train.ema": UNIFORM})))


def test_a_default_outside_the_space_is_not_told_to_the_sampler() -> None:
    assert (
        default_draw(config_with({"train.lr": {"kind": "uniform", "low": 0.5, "high": 0.9}}))
        is None
    )
    assert default_draw(
        config_with({"train.lr": {"kind": "uniform", "low": 1e-3, "high": 0.9}})
    ) == {"train.lr": 2e-3}


def test_a_trial_keeps_the_evaluations_threat_and_the_searchs_length() -> None:
    config = config_with(
        {"train.attack.rgb_eps": {"kind": "uniform", "low": 0.0, "high": 0.2}}, epochs=7, workers=3
    )
    trial = trial_config(config, resolve(config, {"train.attack.rgb_eps": 0.2}))
    assert trial.train.attack.rgb_eps == 0.2
    assert trial.threat == config.threat and trial.evaluate == config.evaluate
    assert trial.data == config.data and trial.seed == config.seed
    assert (trial.train.epochs, trial.ray.workers) == (7, 3)
    validation = (config.train.val_steps, config.train.val_clips)
    assert (trial.train.val_steps, trial.train.val_clips) == validation
