"""Settings of the hyperparameter search."""

from typing import Annotated, Literal

from pydantic import Field

from components.config.base import Fraction, Section


class Uniform(Section):
    """A float between low and high, optionally on a log scale or in steps of q."""

    kind: Literal["uniform"] = "uniform"
    low: Fraction
    high: Fraction
    log: bool = False
    q: float = 0.0


class RandInt(Section):
    """An integer from low to high, both included."""

    kind: Literal["int"]
    low: int
    high: int
    log: bool = False


class Choice(Section):
    """One of the listed values; all of them in a grid search."""

    kind: Literal["choice"]
    values: tuple[float | int | bool | str | tuple[int, ...] | tuple[float, ...], ...]


class Ratio(Section):
    """A multiple of another parameter of the same trial: the ratio is drawn, not the value."""

    kind: Literal["ratio"]
    of: str = Field(description="dotted name, searched or not")
    low: Fraction
    high: Fraction
    log: bool = False


Distribution = Annotated[Uniform | RandInt | Choice | Ratio, Field(discriminator="kind")]


class TuneSection(Section):
    """One search over any parameters of the project, by their dotted names."""

    enabled: bool = True
    space: dict[str, Distribution] = {}
    search: Literal["tpe", "random", "grid"] = "tpe"
    multi_objective: bool = Field(False, description="TPE also trades in clean accuracy and cost")
    defaults_first: bool = Field(True, description="the first trial changes nothing")
    trials: int = Field(4, ge=1)
    max_hours: float = Field(0.0, ge=0, description="wall-clock budget; 0 = none")
    max_device_hours: float = Field(0.0, ge=0, description="budget of worker hours; 0 = none")
    concurrent: int = Field(0, ge=0, description="trials side by side; 0 = what fits")
    epochs: int = Field(3, ge=1)
    asha: bool = Field(True, description="stop the trials that lag behind")
    grace_epochs: int = Field(1, ge=1, description="epochs before ASHA may stop a trial")
    reduction: int = Field(2, ge=2, description="ASHA's reduction factor")
    workers: int = Field(1, ge=1, description="training workers of one trial")
    max_failures: int = Field(2, ge=0, description="restarts of a trial whose process was lost")
    finalists: int = Field(2, ge=1, description="trials re-scored with the finalist suite")
    finalist_suite: Literal["thin", "quick", "standard"] = "quick"
    finalist_clips: int = Field(0, ge=0, description="validation clips of that; 0 = all")
    proxy_steps: int = Field(5, ge=1, description="PGD steps of the cheap score")
    val_clips: int = Field(0, ge=0, description="validation clips of the cheap score; 0 = all")
