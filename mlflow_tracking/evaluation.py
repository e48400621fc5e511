"""What the last stages made, in MLflow: figures, tables, per-clip records, curves, the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.config import Config
from components.files import write_csv
from mlflow_tracking import names, store
from mlflow_tracking.card import accuracies, headlines
from mlflow_tracking.linked import DataSet
from mlflow_tracking.record import newest
from mlflow_tracking.run import start_run


def log_evaluation(config: Config, artifacts: Path, model: str, shards: str) -> None:
    """Log what the evaluate stage wrote for `model` as a run of its own.

    shards: folder or URI of the clips it was measured on.
    """
    folder = artifacts / "evaluation"
    summary: dict[str, Any] = json.loads((folder / f"{model}.json").read_text())
    flags = {f"flag.{flag['check']}": flag["status"] for flag in summary.get("flags", ())}
    tags = {
        "model": model,
        "variant": summary.get("variant"),
        "seed": summary.get("seed"),
        "lineage.suite_hash": summary.get("suite_hash"),
        "lineage.checkpoint": summary.get("checkpoint_sha256"),
        "flagged": summary.get("flagged"),
        **flags,
    }
    name = f"{model} {summary.get('suite', '')}"
    with start_run("evaluate", config, name=name, artifacts=artifacts, tags=tags) as run:
        run.headline(names.evaluation_metrics(summary), f"{model}/")
        run.log_metrics(names.weight_metrics(summary))
        if "shards_fingerprint" in summary:
            data = test_split(config, summary, summary["shards_fingerprint"], shards)
            run.log_data_set(data, "test")
            key = summary["checkpoint_sha256"]
            run.log_model(key, model, data, split="test", tags=model_tags(summary))
            training = newest(artifacts, "train", model)
            if training and key in training.body().get("models", {}):
                # MLflow's table of runs shows models at the runs that made them alone.
                run.add_to(training, names.evaluation_metrics(summary))
                training.update(data_sets={"test": data.entry("test")})
        with TemporaryDirectory() as temporary:
            table = Path(temporary) / "accuracies.csv"
            write_csv(table, ("what", "value", "interval"), accuracies(summary))
            run.log_artifact(table)
        run.set_tags({"mlflow.note.content": headlines(summary)})
        for file in sorted(folder.glob(f"{model}[._]*")):
            if "adversarial" not in file.name:
                run.log_artifact(file, "evaluation")


def test_split(
    config: Config, summary: Mapping[str, Any], fingerprint: str, shards: str
) -> DataSet:
    """The clips that an evaluation has read. A draw of them is another set than all of them."""
    name = f"{config.recipe}-test" + (f"-{summary['clips']}" if config.evaluate.clips else "")
    facts = {"clips": summary["clips"], "source": summary.get("source", config.data.source)}
    return DataSet(name, fingerprint, store.redact(shards), facts)


def model_tags(summary: Mapping[str, Any]) -> dict[str, Any]:
    """By what an evaluated model is found among others: its run, and the terms of its figures."""
    known = ("recipe", "variant", "seed", "suite", "flagged")
    return {key: summary[key] for key in known if key in summary}


def log_report(config: Config, artifacts: Path) -> None:
    """Log the report page and its table as a run of its own."""
    with start_run("report", config, name=f"report of {config.recipe}", artifacts=artifacts) as run:
        run.log_artifact(artifacts / "report")
