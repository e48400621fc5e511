"""Can a run be repeated? How its lineage differs from what is here; its numbers compared."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from components.config import Config, flatten, from_dict
from components.errors import UserError
from mlflow_tracking.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Numbers of the machine and the clock, which no second run has in common.
CLOCK = re.compile(r"^(system|time)/|clips_per_s|seconds|(^|/)cost/")
# Hardware and the lock file are reported and do not forbid a comparison: the same bits are not
# promised on another machine, and DVC rewrites the lock after each stage.
REPORTED_ONLY = ("hardware", "dvc_lock", "git_branch", "settings")


@dataclass(frozen=True)
class Recorded:
    """A run as MLflow knows it. `metrics` has (name, step) -> value."""

    run_id: str
    stage: str
    model: str
    facts: Mapping[str, Any]
    config: Config
    metrics: Mapping[tuple[str, int], float]


@dataclass(frozen=True)
class Difference:
    """One fact that is not the same here. `blocks` when the numbers cannot be compared then."""

    what: str
    there: Any
    here: Any
    blocks: bool


def read_run(mlflow: "MlflowClient", run_id: str) -> Recorded:
    """The run with its lineage, settings and metrics; ValueError when it has no lineage."""
    from mlflow.exceptions import MlflowException

    try:
        run = mlflow.get_run(run_id)
        with TemporaryDirectory() as temporary:
            folder = Path(mlflow.download_artifacts(run_id, "lineage", temporary))
            facts = json.loads((folder / "lineage.json").read_text())
            config = from_dict(yaml.safe_load((folder / "params.yaml").read_text()))
    except (MlflowException, OSError) as error:
        raise UserError(f"run {run_id} cannot be read or holds no lineage: {error}") from error
    tags = run.data.tags
    # Beside a training's own figures are those that evaluations have added to it.
    added = ("test/",) if tags["stage"] == "train" else ()
    metrics = {
        (key, point.step): point.value
        for key in run.data.metrics
        if not CLOCK.search(key) and not key.startswith(added)
        for point in mlflow.get_metric_history(run_id, key)
    }
    return Recorded(run_id, tags["stage"], tags.get("model", ""), facts, config, metrics)


def differences(recorded: Recorded, here: Mapping[str, Any], config: Config) -> list[Difference]:
    """What differs: facts of the lineage, and settings of `params.yaml` here.

    Settings never forbid a second run, since it takes those of the first.
    """
    found = []
    there_flat, here_flat = _flat(recorded.facts), _flat(here)
    for key in sorted(there_flat.keys() | here_flat.keys()):
        there, now = there_flat.get(key), here_flat.get(key)
        if there != now and key != "settings":
            found.append(Difference(key, there, now, key.partition(".")[0] not in REPORTED_ONLY))
    then, now_settings = flatten(recorded.config), flatten(config)
    for key in sorted(then.keys() | now_settings.keys()):
        if then.get(key) != now_settings.get(key) and not key.startswith(("paths.", "tracking.")):
            found.append(Difference(key, then.get(key), now_settings.get(key), False))
    return found


def compare(recorded: Recorded, again: Record, tolerance: float) -> tuple[int, list[str]]:
    """Numbers compared, and a line for each that is missing or off by more than `tolerance`."""
    metrics = {
        (point.name, point.step): point.value
        for point in again.points()
        if math.isfinite(point.value) and not CLOCK.search(point.name)
    }
    lines = []
    for key in sorted(recorded.metrics.keys() | metrics.keys()):
        then, now = recorded.metrics.get(key), metrics.get(key)
        if then is None or now is None or abs(then - now) > tolerance:
            lines.append(f"{key[0]} at step {key[1]}: {then} then, {now} now")
    return len(recorded.metrics), lines


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat
