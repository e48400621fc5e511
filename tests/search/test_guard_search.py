"""The search judges by what it may see: each test fails on a small break that once went unseen."""

import re
from importlib.util import spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from ray.tune.experiment import Trial as TuneTrial

from components.checkpoint import checkpoint_files, save_checkpoint
from components.config import load_config, to_dict
from components.models import build_model
from components.search.objective import TrialRecord
from pipelines import _trial_cleanup
from pipelines._search import Asha
from pipelines._stage import Stage
from pipelines._trial import score_checkpoint
from pipelines.tune import first_variant

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_search: list[str]):
    """Settings by which two subjects validate, and the checkpoint of an untrained model."""
    config = load_config(
        PARAMS,
        [*tiny_search, "data.custom.subjects=[1,2,3,4]", "data.val_subjects=[2,3]"],
    )
    spec = to_dict(config.model)
    torch.manual_seed(0)
    model = build_model({**spec, "num_classes": 3})
    about = {"model": spec, "num_classes": 3, "classes": [1, 2, 3]}
    save_checkpoint(tmp_path / "best", model, about)
    return config, checkpoint_files(tmp_path / "best")


def test_the_second_rung_reads_validation_clips_alone(checkpoint, tiny_shards) -> None:
    config, files = checkpoint
    found = score_checkpoint(config, str(tiny_shards), files, "thin")
    assert found["clean"]["n"] == 16  # two subjects of eight clips; one subject tests
    assert {cell["n"] for cell in found["cells"].values()} == {16}
    assert score_checkpoint(config, str(tiny_shards), files, "thin", clips=5)["clean"]["n"] == 5


def test_the_second_rung_s_score_is_that_of_the_worst_cell(checkpoint, tiny_shards) -> None:
    config, files = checkpoint
    found = score_checkpoint(config, str(tiny_shards), files, "thin")
    values = {name: cell["value"] for name, cell in found["cells"].items()}
    assert set(values) == {"rgb", "skeleton", "both"}
    assert found["robust"]["value"] == min(values.values())


def test_asha_stops_the_worst_and_spares_the_defaults(tiny_search) -> None:
    config = load_config(PARAMS, [*tiny_search, "tune.epochs=4"])
    known: dict[str, SimpleNamespace] = {}
    asha = Asha(SimpleNamespace(config=config, records=lambda: [], record=known.__getitem__))
    trials: dict[str, TuneTrial] = {}

    def report(key: str, score: float, epoch: int = 1, default: bool = False) -> str:
        known.setdefault(key, SimpleNamespace(key=key, default=default))
        if key not in trials:
            trials[key] = TuneTrial("stub", config={"key": key}, stub=True)
            asha.on_trial_add(None, trials[key])
        result = {"epoch": epoch, "val_robust_acc_worst": score}
        return asha.on_trial_result(None, trials[key], result)

    for i, score in enumerate((0.2, 0.4, 0.6, 0.8)):
        report(f"early{i}", score)
    assert report("good", 0.9) == "CONTINUE"
    assert report("bad", 0.1) == "STOP"
    assert report("default", 0.1, default=True) == "CONTINUE"
    assert report("whole", 0.95) == "CONTINUE"
    assert report("whole", 0.0, epoch=4) == "CONTINUE"  # its last epoch: it ends by itself


def test_asha_knows_how_far_the_trials_of_earlier_sessions_came(tiny_search) -> None:
    """After a kill, a trial is held to the rungs of those that were over before."""
    config = load_config(PARAMS, [*tiny_search, "tune.epochs=4"])
    before = [
        TrialRecord(
            i, f"old{i}", {}, {}, "pgd_at", status="stopped", rows={1: {"val_robust_acc_both": v}}
        )
        for i, v in enumerate((0.5, 0.6, 0.7, 0.8))
    ]
    new = SimpleNamespace(key="new", default=False)

    def verdict(earlier: list[TrialRecord]) -> str:
        search = SimpleNamespace(config=config, records=lambda: earlier, record=lambda key: new)
        asha = Asha(search)
        trial = TuneTrial("stub", config={"key": "new"}, stub=True)
        asha.on_trial_add(None, trial)
        return asha.on_trial_result(None, trial, {"epoch": 1, "val_robust_acc_worst": 0.4})

    assert verdict(before) == "STOP"
    assert verdict([]) == "CONTINUE"


def test_the_search_tunes_the_first_variant_compared() -> None:
    def variant(*words: str) -> tuple[str, str]:
        words = ("compare=[late,amr]", *words)
        config = first_variant(Stage("tune", load_config(PARAMS, words), words, PARAMS)).config
        return config.variant, config.model.fusion

    assert variant() == ("late", "late")
    assert variant("variant=mmtm") == ("mmtm", "mmtm")


def test_another_ray_is_refused_before_its_private_names_are_used(monkeypatch) -> None:
    source = Path(_trial_cleanup.__file__)
    monkeypatch.setattr(ray, "__version__", "2.61.0")
    with pytest.raises(ImportError, match=r"Ray 2\.60.*this is Ray 2\.61\.0.*54305"):
        spec_from_file_location("another", source).loader.load_module()  # type: ignore[union-attr]


def test_private_names_of_ray_are_in_one_file_a_purpose() -> None:
    """Also `ray.train.v2.api`, whose names `ray.train` has."""
    private = re.compile(r"^\s*(from|import) ray\S*(\._|\.core\.|\.v2\.)", re.M)
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("components", "pipelines", "mlflow_tracking")
        for path in (ROOT / folder).rglob("*.py")
        if private.search(path.read_text())
    }
    assert found == {"pipelines/_trial_cleanup.py", "pipelines/_loopback.py"}
