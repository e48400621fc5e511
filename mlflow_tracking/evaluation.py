"""What the last stages made, in MLflow: figures, tables, per-clip records, curves, the page."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.config import Config
from components.files import write_csv
from mlflow_tracking import names
from mlflow_tracking.card import accuracies, headlines
from mlflow_tracking.run import start_run


def log_evaluation(config: Config, artifacts: Path, model: str) -> None:
    """Log what the evaluate stage wrote for `model` as a run of its own."""
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
        with TemporaryDirectory() as temporary:
            table = Path(temporary) / "accuracies.csv"
            write_csv(table, ("what", "value", "interval"), accuracies(summary))
            run.log_artifact(table)
        run.set_tags({"mlflow.note.content": headlines(summary)})
        for file in sorted(folder.glob(f"{model}[._]*")):
            if "adversarial" not in file.name:
                run.log_artifact(file, "evaluation")


def log_report(config: Config, artifacts: Path) -> None:
    """Log the report page and its table as a run of its own."""
    with start_run("report", config, name=f"report of {config.recipe}", artifacts=artifacts) as run:
        run.log_artifact(artifacts / "report")
