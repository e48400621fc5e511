"""Several seeds by one command: nested runs, one table above them, and nothing done twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines import seeds
from pipelines._stage import run_stage

WORDS = [
    "seeds=2", "seed=3", "train.models=[amr]", "train.epochs=1", "train.val_clips=4",
    "train.val_steps=1", "train.attack.steps=1", "ray.workers=1", "evaluate.checks=false",
    "evaluate.curves=false", "data.val_subjects=[2]",
]  # fmt: skip


@pytest.mark.slow
def test_seeds_are_nested_and_go_on_where_they_stopped(project: Any) -> None:
    words = [*project.words, *WORDS]
    assert run_stage("seeds", seeds.main, words) == 0
    out = project.artifacts / "seeds"
    body = json.loads((out / "seeds.json").read_text())
    assert body["seeds"] == [3, 4] and body["differences"] == []
    single = [json.loads((out / s / "evaluation" / "amr.json").read_text()) for s in "34"]
    clean = [one["clean_acc"]["value"] for one in single]
    assert [one["seed"] for one in single] == [3, 4]
    assert body["models"]["amr"]["clean"]["per_seed"] == pytest.approx(clean)
    worst = [one["worst"]["both"]["value"] for one in single]
    assert body["models"]["amr"]["both"]["per_seed"] == pytest.approx(worst)
    weights = [weights_of(out / s) for s in "34"]
    assert weights[0].read_bytes() != weights[1].read_bytes()

    client = MlflowClient(project.uri)
    (experiment,) = client.search_experiments(filter_string="name = 'amr'")
    runs = client.search_runs([experiment.experiment_id])
    (above,) = [run for run in runs if run.data.tags["stage"] == "seeds"]
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == above.info.run_id]
    assert {run.info.run_name for run in nested} == {
        f"{what} seed {seed}"
        for what in ("train amr pgd_at", "evaluate amr thin")
        for seed in (3, 4)
    }
    assert above.data.tags["mlflow.source.name"] == "python -m pipelines.seeds"
    assert above.data.tags["mlflow.note.content"].startswith("2 seeds, ")
    (one, *_) = [r for r in nested if r.data.tags["stage"] == "evaluate"]
    assert "| worst case, both |" in one.data.tags["mlflow.note.content"]
    assert above.data.metrics["amr/test/clean_acc"] == pytest.approx(sum(clean) / 2)
    assert "amr/test/robust_acc/both/std" in above.data.metrics
    assert {f.path for f in client.list_artifacts(above.info.run_id)} >= {"seeds.csv", "seeds.json"}
    assert {r.info.run_id for r in nested} == {
        run for models in body["runs"].values() for stages in models.values()
        for run in stages.values()
    }  # fmt: skip

    # Again: nothing is trained or evaluated a second time.
    before = [path.stat().st_mtime_ns for path in weights]
    assert run_stage("seeds", seeds.main, words) == 0
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert json.loads((out / "seeds.json").read_text())["models"] == body["models"]


def weights_of(folder: Path) -> Path:
    return folder / "train" / "amr" / "best" / "model.safetensors"


def test_seeds_without_shards_names_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_stage("seeds", seeds.main, [f"paths.artifacts={tmp_path}"]) == 2
    assert "pipelines.shard" in capsys.readouterr().err
