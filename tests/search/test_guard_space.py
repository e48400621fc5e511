"""The space of a search, to the last number and the last option."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from components.config import Config, apply_overrides
from components.config.load import ConfigError
from components.search.space import (
    check_space,
    default_draw,
    ends,
    grid,
    resolve,
    suggest,
    to_optuna,
    trial_config,
)

FORMS = {
    "train.ema": ({"kind": "uniform", "low": 0.1, "high": 0.9}, FloatDistribution(0.1, 0.9)),
    "train.lr": (
        {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True},
        FloatDistribution(0.001, 0.1, log=True),
    ),
    "model.amr.distil": (
        {"kind": "uniform", "low": 0.0, "high": 0.2, "q": 0.05},
        FloatDistribution(0.0, 0.2, step=0.05),
    ),
    "train.attack.rgb_eps": (
        {"kind": "ratio", "of": "train.attack.skeleton_eps", "low": 0.5, "high": 2, "log": True},
        FloatDistribution(0.5, 2.0, log=True),
    ),
    "train.attack.skeleton_eps": (
        {"kind": "ratio", "of": "train.lr", "low": 0.5, "high": 2},
        FloatDistribution(0.5, 2.0),
    ),
    "train.attack.steps": (
        {"kind": "int", "low": 1, "high": 8, "log": True},
        IntDistribution(1, 8, log=True),
    ),
    "train.batch_size": ({"kind": "int", "low": 8, "high": 9}, IntDistribution(8, 9)),
    "model.fusion_stages": (
        {"kind": "choice", "values": [[], [1, -1]]},
        CategoricalDistribution(["[]", "[1, -1]"]),
    ),
    "model.fusion": (
        {"kind": "choice", "values": ["amr", "mmtm"]},
        CategoricalDistribution(["amr", "mmtm"]),
    ),
}


def config_with(space: dict, **others: object) -> Config:
    return apply_overrides(Config(), {"tune.space": space, **others})


def test_every_kind_has_its_form_at_the_sampler() -> None:
    space = config_with({name: words for name, (words, _) in FORMS.items()}).tune.space
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    for name, (_, form) in FORMS.items():
        assert to_optuna(name, space[name]) == form, name
        value = suggest(trial, name, space[name])
        assert trial.distributions[name] == form
        assert suggest(trial, name, space[name]) == value == trial.params[name]
        if isinstance(form, CategoricalDistribution):
            assert ends(space[name]) == list(form.choices)
        else:
            assert ends(space[name]) == [form.low, form.high]


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("train.batch_size", {"kind": "int", "low": 0, "high": 9}, "batch_size"),
        ("train.ema", {"kind": "uniform", "low": -0.1, "high": 0.5}, "ema"),
        ("train.ema", {"kind": "uniform", "low": 0.6, "high": 0.5}, "must lie below high"),
        ("train.ema", {"kind": "ratio", "of": "train.ema", "low": 1, "high": 2}, "of=train.ema"),
        (
            "train.ema",
            {"kind": "ratio", "of": "train.attack.early_stop", "low": 0.1, "high": 0.2},
            "is no number",
        ),
        ("train.stack_epochs", {"kind": "int", "low": 1, "high": 2}, "trains? the streams alone"),
        ("threat.rgb.eps", {"kind": "uniform", "low": 0.1, "high": 0.2}, "train.attack"),
        ("variant", {"kind": "choice", "values": ["late", "amr"]}, "earlier stages"),
    ],
)
def test_a_space_that_cannot_be_searched_is_named(name: str, words: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"tune\.space") as caught:
        check_space(config_with({name: words}))
    assert name in str(caught.value) and reason.split("? ")[-1] in str(caught.value)


@pytest.mark.parametrize("of", ["train.attack.skeleton_eps", "train.attack.steps"])
def test_a_ratio_is_of_a_plain_number(of: str) -> None:
    """Of a drawn number it may be; not of a choice or another ratio."""
    one = {"train.attack.rgb_eps": {"kind": "ratio", "of": of, "low": 0.01, "high": 0.02}}
    check_space(config_with({**one, of: {"kind": "int", "low": 1, "high": 2}}))
    check_space(config_with(one))
    for words in (
        {"kind": "choice", "values": [1, 2]},
        {"kind": "ratio", "of": "train.lr", "low": 500, "high": 1000},
    ):
        with pytest.raises(ConfigError, match="not itself a ratio or a choice"):
            check_space(config_with({**one, of: words}))


def test_draws_are_checked_and_trials_are_short_and_alone() -> None:
    """TRADES and attacks that stop early are no setting together."""
    space = {
        "train.method": {"kind": "choice", "values": ["pgd_at", "trades"]},
        "train.attack.early_stop": {"kind": "choice", "values": [True, False]},
        "train.ema": {"kind": "uniform", "low": 0.1, "high": 0.9},
    }
    config = config_with(space)
    early = {"train.method": "pgd_at", "train.attack.early_stop": True}
    assert resolve(config, early) == early
    with pytest.raises(ConfigError, match="early_stop"):
        resolve(config, {**early, "train.method": "trades"})
    settings = {"train.stack_epochs": 4, "ray.max_workers": 3, "tune.epochs": 5, "tune.workers": 2}
    trial = trial_config(apply_overrides(config, settings), {"train.ema": 0.3})
    assert (trial.train.stack_epochs, trial.ray.max_workers) == (0, 0)
    assert (trial.train.epochs, trial.ray.workers, trial.train.ema) == (5, 2, 0.3)


def test_choices_come_back_as_they_were_written() -> None:
    config = config_with({"train.attack.steps": {"kind": "choice", "values": [1, 3]}, **{
        "model.fusion_stages": {"kind": "choice", "values": [[-1], [1, -1]]}}})  # fmt: skip
    drawn = {"train.attack.steps": 3, "model.fusion_stages": "[1, -1]"}
    assert resolve(config, drawn) == {"train.attack.steps": 3, "model.fusion_stages": [1, -1]}


@pytest.mark.parametrize(
    ("words", "value", "drawn"),
    [
        ({"kind": "uniform", "low": 0.1, "high": 0.5}, 0.1, 0.1),
        ({"kind": "uniform", "low": 0.1, "high": 0.5}, 0.5, 0.5),
        ({"kind": "uniform", "low": 0.1, "high": 0.5}, 0.51, None),
        ({"kind": "uniform", "low": 0.1, "high": 0.5}, 0.09, None),
        ({"kind": "uniform", "low": 0.1, "high": 0.5, "q": 0.1}, 0.3, 0.3),
        ({"kind": "uniform", "low": 0.1, "high": 0.5, "q": 0.1}, 0.35, None),
        ({"kind": "choice", "values": [0.2, 0.3]}, 0.3, 0.3),
        ({"kind": "choice", "values": [0.2, 0.3]}, 0.25, None),
        ({"kind": "ratio", "of": "train.lr", "low": 0.5, "high": 4}, 0.4, 2.0),
        ({"kind": "ratio", "of": "train.lr", "low": 0.5, "high": 4}, 0.9, None),
        ({"kind": "ratio", "of": "train.aux_weight", "low": 0.5, "high": 4}, 0.9, None),  # of 0
    ],
)
def test_the_draw_that_changes_nothing(words: dict, value: float, drawn: float | None) -> None:
    config = config_with(
        {"train.ema": words}, **{"train.ema": value, "train.lr": 0.2, "train.aux_weight": 0.0}
    )
    assert default_draw(config) == (None if drawn is None else {"train.ema": pytest.approx(drawn)})
    steps = {"train.attack.steps": {"kind": "int", "low": 2, "high": 5}, "train.ema": words}
    many = apply_overrides(config, {"tune.space": steps, "train.attack.steps": 3})
    both = None if drawn is None else {"train.attack.steps": 3, "train.ema": pytest.approx(drawn)}
    assert default_draw(many) == both


def test_the_points_of_a_grid() -> None:
    space = {
        "train.attack.steps": {"kind": "int", "low": 2, "high": 3},
        "train.ema": {"kind": "uniform", "low": 0.1, "high": 0.7, "q": 0.2},
        "train.lr": {"kind": "uniform", "low": 0.1, "high": 0.35, "q": 0.1},
    }
    points = [tuple(point.values()) for point in grid(config_with(space))]
    wanted = [
        (steps, ema, lr)
        for steps in (2, 3)
        for ema in (0.1, 0.3, 0.5, 0.7)
        for lr in (0.1, 0.2, 0.3)
    ]
    assert [pytest.approx(point) for point in points] == wanted
    assert {tuple(point) for point in grid(config_with(space))} == {tuple(space)}
    with pytest.raises(ConfigError, match="no end of values"):
        list(grid(config_with({"train.ema": FORMS["train.attack.rgb_eps"][0]})))
