"""A trial that ASHA stops gives back its workers and its placement group at once."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.util import placement_group_table

from components.config import Config, apply_overrides
from components.search.study import Search
from mlflow_tracking.run import start_run
from pipelines._cluster import cluster
from pipelines._search import run_search
from pipelines._slots import slots
from pipelines._trial_runs import TrialRuns

SETTINGS = {
    "data.protocol": "custom", "data.custom.subjects": [1, 2, 3, 4], "data.val_subjects": [2],
    "model.width": 0.25, "model.rgb_frames": 4, "model.rgb_size": 16, "model.skeleton_frames": 8,
    "train.batch_size": 16, "train.attack.steps": 2,
    "tracking.system_metrics": False, "tracking.patience": 5.0,
    "tune.space": {"train.lr": {"kind": "uniform", "low": 1e-4, "high": 1e-2, "log": True}},
    "tune.epochs": 40, "train.val_steps": 2,
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return apply_overrides(Config(), {**SETTINGS, "tracking.uri": uri})


def seeded(config: Config, folder: Path) -> Search:
    """A search with the defaults and two more trials, which nothing can beat."""
    search = Search(apply_overrides(config, {"tune.trials": 3}), folder)
    for _ in range(3):
        trial = search.next()
        assert trial is not None
        for epoch in range(1, 41):
            search.epoch(
                trial.key,
                {"epoch": epoch, "val_robust_acc_both": 1.1, "val_clean_acc": 1.0,
                 "clips_per_s": 1.0, "train_seconds": 1.0, "steps": 1},
            )  # fmt: skip
        search.end(trial.key, "completed")
    return search


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return condition()


@pytest.mark.slow
def test_a_stopped_trial_frees_its_workers_and_an_ended_budget_all(
    tmp_path: Path, tiny_shards: Path, settings: Config
) -> None:
    folder = tmp_path / "search"
    seconds = seeded(settings, folder).wall_seconds
    assert seconds == 0.0  # no session yet
    config = apply_overrides(settings, {"tune.trials": 4})
    with start_run("tune", config, name="search", artifacts=tmp_path) as run, cluster(config.ray):
        everything = ray.cluster_resources()["CPU"]

        def free() -> bool:
            held = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
            return not held and ray.available_resources().get("CPU", 0) == everything

        def go_on(config: Config) -> tuple[Search, str]:
            search = Search(config, folder)
            ended = run_search(
                search,
                TrialRuns(config, tmp_path, run),
                out=tmp_path / "tune",
                shards=str(tiny_shards),
                storage=str(tmp_path / "runs"),
            )
            return search, ended

        search, _ = go_on(config)
        last = search.records()[-1]
        assert (last.status, len(last.rows)) == ("stopped", 1)
        assert until(free), placement_group_table()

        hours = (search.wall_seconds + 1.0) / 3600
        search, ended = go_on(apply_overrides(config, {"tune.trials": 5, "tune.max_hours": hours}))
        assert "max_hours" in ended
        assert search.records()[-1].status == "open"
        key = search.records()[-1].key
        assert (
            json.loads((tmp_path / "tune/trials" / f"{key}.json").read_text())["status"] == "open"
        )
        assert until(free), placement_group_table()


def test_as_many_trials_as_fit_and_never_none(settings: Config) -> None:
    two = apply_overrides(settings, {"tune.workers": 2})
    assert slots(settings, {"CPU": 3.0}) == 3
    assert slots(two, {"CPU": 3.0}) == 1
    gpu = apply_overrides(two, {"ray.gpus_per_worker": 0.5})
    assert slots(gpu, {"CPU": 64.0, "GPU": 4.0}) == 4
    with pytest.raises(ValueError, match=r"needs 2 CPUs \(tune.workers=2\).*has 1"):
        slots(two, {"CPU": 1.0})
    with pytest.raises(ValueError, match="GPU"):
        slots(gpu, {"CPU": 64.0})
