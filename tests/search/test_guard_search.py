"""The search judges by what it may see: each test fails on a small break that once went unseen."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.tune.experiment import Trial as TuneTrial

from components.checkpoint import save_checkpoint
from components.config import to_dict
from components.config.load import load_config
from components.models import build_model
from components.search.budget import Budget
from pipelines._finalists import score_checkpoint
from pipelines._tuning import Asha

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_search: list[str]):
    """Settings by which two subjects validate, and the checkpoint of an untrained model."""
    config = load_config(
        PARAMS,
        [*tiny_search, "data.train_subjects=[1,2,3,4]", "data.val_subjects=[2,3]"],
    )
    spec = to_dict(config.model)
    torch.manual_seed(0)
    model = build_model({**spec, "num_classes": 3})
    about = {"model": spec, "num_classes": 3, "classes": [1, 2, 3]}
    save_checkpoint(tmp_path / "best", model, about)
    return config, tmp_path / "best"


def test_the_second_rung_reads_validation_clips_alone(checkpoint, tiny_shards) -> None:
    config, folder = checkpoint
    found = score_checkpoint(config, str(tiny_shards), folder, "thin")
    assert found["clean"]["n"] == 16  # two subjects of eight clips; one subject tests
    assert {cell["n"] for cell in found["cells"].values()} == {16}
    assert score_checkpoint(config, str(tiny_shards), folder, "thin", clips=5)["clean"]["n"] == 5


def test_the_second_rung_s_score_is_that_of_the_worst_cell(checkpoint, tiny_shards) -> None:
    config, folder = checkpoint
    found = score_checkpoint(config, str(tiny_shards), folder, "thin")
    values = {name: cell["value"] for name, cell in found["cells"].items()}
    assert set(values) == {"rgb", "skeleton", "both"}
    assert found["robust"]["value"] == min(values.values())


@pytest.mark.parametrize(
    ("wall", "trials", "spent"),
    [(0, 0, None), (7199, 0, None), (7200, 0, "hours"), (0, 5399, None), (0, 5400, "device")],
)
def test_the_budget_counts_hours_and_the_devices_of_a_trial(wall, trials, spent) -> None:
    """Two hours by the clock, three of devices; a trial holds two of them."""
    ledger = SimpleNamespace(wall_seconds=wall, trial_seconds=trials)
    words = Budget(trials=9, max_hours=2.0, max_device_hours=3.0, devices=2).spent(ledger)
    assert (words is None) == (spent is None) and (spent or "") in (words or "")


def test_asha_stops_the_worst_and_spares_the_defaults(tiny_search) -> None:
    section = load_config(PARAMS, [*tiny_search, "tune.epochs=4", "tune.grace_epochs=1"]).tune
    ledger = SimpleNamespace(trials={}, finished=lambda: [])
    asha = Asha(section, ledger)

    def report(key: str, score: float, epoch: int = 1, default: bool = False) -> str:
        ledger.trials.setdefault(key, SimpleNamespace(key=key, default=default))
        if key not in trials:
            trials[key] = TuneTrial("stub", config={"key": key}, stub=True)
            asha.on_trial_add(None, trials[key])
        result = {"epoch": epoch, "val_robust_acc_worst": score}
        return asha.on_trial_result(None, trials[key], result)

    trials: dict[str, TuneTrial] = {}
    for i, score in enumerate((0.2, 0.4, 0.6, 0.8)):
        report(f"early{i}", score)
    assert report("good", 0.9) == "CONTINUE"
    assert report("bad", 0.1) == "STOP"
    assert report("default", 0.1, default=True) == "CONTINUE"
    assert report("whole", 0.95) == "CONTINUE"
    assert report("whole", 0.0, epoch=4) == "CONTINUE"  # its last epoch: it ends by itself
