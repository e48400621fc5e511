"""The search space: which parameters may be searched, and from a draw to a trial's settings."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from components.config import Config, apply_overrides, flatten, to_dict
from components.config.load import ConfigError, nearest, nearest_key
from components.config.tune import Choice, Distribution, RandInt, Ratio, Uniform
from components.errors import UserError
from components.models.build import check_names
from components.training.methods import METHODS

SECTIONS = ("model.", "train.")
# What the search may not touch: it would change the yardstick, not the model.
NOT_SEARCHABLE = {
    "threat": "the evaluation's threat model is fixed; search train.attack.* instead",
    "evaluate": "the evaluation is fixed",
    "data": "every trial must see the same clips",
    "seed": "a lucky seed is no better parameter",
    "tune": "a search does not search itself",
    "train.epochs": "all trials have tune.epochs, or their scores could not be compared",
    "train.stack_epochs": "trials train the streams alone",
    "train.val_steps": "every trial must meet the same attack in validation",
    "train.val_clips": "every trial must be validated on the same clips",
}

Drawn = Mapping[str, Any]


def check_space(config: Config) -> None:
    """Raise ConfigError unless every name may be searched and both ends of it are valid."""
    known = flatten(config)
    if not config.tune.space:
        raise ConfigError("tune.space is empty; name a parameter, or set tune.trials=0")
    for name, distribution in config.tune.space.items():
        for closed, reason in NOT_SEARCHABLE.items():
            if name == closed or name.startswith(closed + "."):
                raise ConfigError(f"tune.space: {name} cannot be searched: {reason}")
        if name not in known:
            raise ConfigError(f"tune.space: {nearest_key(name)}")
        if not name.startswith(SECTIONS):
            raise ConfigError(
                f"tune.space: {name} cannot be searched: trials share what earlier stages made; "
                "only names in model. and train. differ between trials"
            )
        to_optuna(name, distribution)
        if isinstance(distribution, Ratio):
            _check_ratio(name, distribution, config)
    for name, distribution in config.tune.space.items():
        for value in ends(distribution):
            try:
                _check_names(apply_overrides(config, resolve(config, {name: value})))
            except UserError as error:
                raise ConfigError(f"tune.space: {name}: {error}") from error


def to_optuna(name: str, distribution: Distribution) -> BaseDistribution:
    """The optuna form; ConfigError names what is wrong with it. Lists are drawn as JSON text."""
    try:
        if isinstance(distribution, Choice):
            if not distribution.values:
                raise UserError("values is empty")
            return CategoricalDistribution([_encode(value) for value in distribution.values])
        if not distribution.low < distribution.high:
            raise UserError(f"low={distribution.low} must lie below high={distribution.high}")
        if isinstance(distribution, RandInt):
            return IntDistribution(distribution.low, distribution.high, log=distribution.log)
        step = (distribution.q or None) if isinstance(distribution, Uniform) else None
        return FloatDistribution(
            distribution.low, distribution.high, log=distribution.log, step=step
        )
    except ValueError as error:
        raise ConfigError(f"tune.space: {name}: {error}") from error


def suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    """Let Optuna draw one parameter of `trial`; one that it has already stays as it is."""
    form = to_optuna(name, distribution)
    if isinstance(form, CategoricalDistribution):
        return trial.suggest_categorical(name, form.choices)
    if isinstance(form, IntDistribution):
        return trial.suggest_int(name, form.low, form.high, log=form.log)
    assert isinstance(form, FloatDistribution)
    return trial.suggest_float(name, form.low, form.high, step=form.step, log=form.log)


def ends(distribution: Distribution) -> list[Any]:
    """The values whose validity speaks for all: both ends, or every choice; as drawn."""
    if isinstance(distribution, Choice):
        return [_encode(value) for value in distribution.values]
    return [distribution.low, distribution.high]


def resolve(config: Config, drawn: Drawn) -> dict[str, Any]:
    """Dotted parameters of a draw: texts decoded, ratios multiplied out, all of them checked."""
    space, flat = config.tune.space, flatten(config)
    values = {
        name: _decode(space[name], value)
        for name, value in drawn.items()
        if not isinstance(space[name], Ratio)
    }
    for name, value in drawn.items():
        distribution = space[name]
        if isinstance(distribution, Ratio):
            values[name] = value * float(values.get(distribution.of, flat[distribution.of]))
    apply_overrides(config, values)
    return values


def trial_config(config: Config, values: Mapping[str, Any]) -> Config:
    """The settings of one trial: its parameters, and the search's own length and workers."""
    tune = config.tune
    fixed = {
        "train.epochs": tune.epochs,
        "train.stack_epochs": 0,  # streams are compared, at equal weights
        "ray.workers": tune.workers,
        "ray.max_workers": 0,
    }
    return apply_overrides(config, {**values, **fixed})


def default_draw(config: Config) -> dict[str, Any] | None:
    """The draw that changes nothing; None when the present values lie outside the space."""
    flat, drawn = flatten(config), {}
    for name, distribution in config.tune.space.items():
        value = flat[name]
        if isinstance(distribution, Choice):
            value = _encode(tuple(value) if isinstance(value, list) else value)
        elif isinstance(distribution, Ratio):
            value = value / flat[distribution.of] if flat[distribution.of] else math.nan
        form = to_optuna(name, distribution)
        if isinstance(value, float) and math.isnan(value):
            return None
        if not _holds(form, value):
            return None
        drawn[name] = value
    return drawn


def grid(config: Config) -> Iterator[dict[str, Any]]:
    """Every combination of a space of choices, integers and stepped floats; else ConfigError."""
    axes = []
    for name, distribution in config.tune.space.items():
        if isinstance(distribution, Choice):
            axes.append(ends(distribution))
        elif isinstance(distribution, RandInt):
            axes.append(list(range(distribution.low, distribution.high + 1)))
        elif isinstance(distribution, Uniform) and distribution.q:
            count = int((distribution.high - distribution.low) / distribution.q + 1e-9) + 1
            axes.append([distribution.low + i * distribution.q for i in range(count)])
        else:
            raise ConfigError(
                f"tune.space: {name} has no end of values for tune.search=grid; "
                "give it kind: choice, or a step q"
            )
    for point in itertools.product(*axes):
        yield dict(zip(config.tune.space, point, strict=True))


def _check_names(config: Config) -> None:
    """UserError for a fusion, backbone or method that does not exist: loading does not look."""
    check_names(to_dict(config.model))
    if config.train.method not in METHODS:
        method = config.train.method
        raise UserError(f"no training method {method!r}{nearest(method, METHODS)}")


def _check_ratio(name: str, distribution: Ratio, config: Config) -> None:
    of = distribution.of
    value = flatten(config).get(of)
    if of not in flatten(config):
        raise ConfigError(f"tune.space: {name}: of: {nearest_key(of)}")
    if of == name or isinstance(config.tune.space.get(of), Ratio | Choice):
        raise ConfigError(
            f"tune.space: {name}: of={of} must be a number that is not itself a ratio or a choice"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"tune.space: {name}: of={of} is no number (it is {value!r})")


def _holds(form: BaseDistribution, value: Any) -> bool:
    if isinstance(form, CategoricalDistribution):
        return any(value == choice for choice in form.choices)
    if isinstance(form, FloatDistribution | IntDistribution):
        inside = form.low <= value <= form.high
        steps = (value - form.low) / form.step if form.step else 0.0
        on_step = abs(steps - round(steps)) < 1e-9
        return bool(inside and (on_step or isinstance(form, IntDistribution)))
    return False


def _encode(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple | list) else value


def _decode(distribution: Distribution, value: Any) -> Any:
    if isinstance(distribution, Choice):
        for choice in distribution.values:
            if _encode(choice) == value and type(_encode(choice)) is type(value):
                return list(choice) if isinstance(choice, tuple) else choice
    return value
