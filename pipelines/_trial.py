"""One trial: a real Ray Train run inside a Tune trial's process, on the node of the driver."""

import json
from pathlib import Path
from typing import Any

import ray
from ray import tune

FAILED, HISTORY = "failed", "history"


def run_trial(given: dict[str, Any]) -> None:
    """Train with the settings in `given`, reporting every epoch; under its key, it goes on.

    given: `key`, `run` (its name in the storage), `config` (JSON of all settings), `shards`,
    `storage`, `out` (absolute folders or URIs) and `leash`. What no retry can mend is reported as
    `failed`, so that Tune does not retry.
    """
    # Here and not above: the driver imports this module too, and torch takes seconds to load.
    from ray.tune.integration.ray_train import TuneReportCallback

    from components.config import from_dict
    from pipelines._leash import Hold
    from pipelines._ray import run_training
    from pipelines._stage import StageError

    key, leash = given["key"], given["leash"]
    # `Hold` is a callback of Ray's own kind: users' callbacks are not told of the start.
    callbacks: list[Any] = [TuneReportCallback(), Hold(leash, key)]
    ray.get(leash.release.remote(key))  # what a lost process of this trial may have left
    try:
        result = run_training(
            from_dict(json.loads(given["config"])),
            name=given["run"],
            storage=given["storage"],
            shards=given["shards"],
            out=Path(given["out"]),
            callbacks=callbacks,
            keep_run=True,
        )
    except StageError as error:
        tune.report({FAILED: str(error)})
        return
    # Epochs whose report was lost with a process are in the checkpoint's history.
    tune.report({HISTORY: result.history})
