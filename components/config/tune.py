"""Settings of the hyperparameter search."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from components.config.base import Section, setting


@dataclass(frozen=True, kw_only=True)
class Uniform(Section):
    """A float between low and high, optionally on a log scale or in steps of q."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float
    log: bool = False
    q: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RandInt(Section):
    """An integer from low to high, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice(Section):
    """One of the listed values; all of them in a grid search."""

    kind: Literal["choice"] = "choice"
    values: tuple[float | int | bool | str | tuple[int, ...] | tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Ratio(Section):
    """A multiple of another parameter of the same trial: the ratio is drawn, not the value."""

    kind: Literal["ratio"] = "ratio"
    of: str
    low: float
    high: float
    log: bool = False


Distribution = Annotated[Uniform | RandInt | Choice | Ratio, Field(discriminator="kind")]


@dataclass(frozen=True)
class TuneSection(Section):
    """One search over any parameters of the project, by their dotted names."""

    space: dict[str, Distribution] = setting(
        {
            "train.attack.skeleton_eps": Uniform(low=0.03, high=0.07),
            "model.amr.distil": Uniform(low=0.25, high=4.0, log=True),
        },
        "what is searched, by dotted name: uniform, int, choice or ratio (docs/search.md)",
    )
    search: Literal["tpe", "random", "grid"] = setting("tpe", "how trials are proposed")
    trials: int = setting(
        3, "trials of the search, the first with the defaults; 0 = train without a search", ge=0
    )
    max_hours: float = setting(0.0, "wall-clock budget; 0 = none", unit="hours", ge=0)
    epochs: int = setting(2, "epochs of a trial", ge=1)
    workers: int = setting(1, "training workers of one trial", ge=1)
    finalists: int = setting(
        1, "trials scored again by a suite, besides the defaults; it decides", ge=1
    )
