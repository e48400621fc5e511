"""`python -m pipelines.results`: what the present recipe's report shows -> results/<recipe>/."""

import sys
from typing import Any

from components.files import write_json
from components.reporting.claims import claims_of, claims_table
from mlflow_tracking import lineage
from pipelines._stage import ROOT, Stage, StageError, run_stage
from pipelines.report import results_of


def main(stage: Stage) -> None:
    """Write one JSON for each row that README and docs may print, and show the table."""
    results = results_of(stage)
    left_out = [variant for variant in stage.config.compare if variant not in results.models]
    if left_out:
        raise StageError(
            f"{', '.join(left_out)}: no evaluation that may stand in this table; run `dvc repro`"
        )
    commit = lineage.head(ROOT)
    if commit is None:
        raise StageError("a claim names the commit it was made with; run this in a git checkout")
    facts: dict[str, Any] = {
        "commit": commit,
        "hardware": {k: lineage.hardware()[k] for k in ("cores", "gpu")},
        "command": f"make results RECIPE={stage.config.recipe}",
    }
    claims = claims_of(results, stage.artifacts / "evaluation", facts)
    folder = ROOT / "results" / stage.config.recipe
    for order, variant in enumerate(stage.config.compare):
        runs = [results.training.get(variant, {})]
        minutes = round(sum(run.get("seconds", 0.0) for run in runs) / 60, 1)
        extra = {"order": order, "train_minutes_of_first_seed": minutes}
        write_json(folder / f"{variant}.json", {**claims[variant], **extra})
    print(claims_table({variant: claims[variant] for variant in stage.config.compare}))
    print(f"written to {folder}")


if __name__ == "__main__":
    sys.exit(run_stage("results", main))
