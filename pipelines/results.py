"""`python -m pipelines.results`: what reports show -> results/, the rows that pages print.

`--pool NAME RECIPE...` takes the test clips of several recipes together, e.g. the folds of a data
set; their stages must have run.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

from components.config import load_config
from components.config.evaluate import check_name
from components.files import write_json
from components.reporting.claims import Part, claims_of, claims_table
from mlflow_tracking import lineage
from pipelines._stage import ROOT, Stage, StageError, run_stage
from pipelines.report import results_of


def main(stage: Stage) -> None:
    """Write one JSON for each row that README and docs may print, and show the table."""
    recipe = stage.config.recipe
    part = part_of(stage)
    left_out = left_out_of(stage, part)
    if left_out:
        raise StageError(
            f"{', '.join(left_out)}: no evaluation that may stand in this table; run `dvc repro`"
        )
    claims = claims_of([part], facts(f"make results RECIPE={recipe}"))
    for variant, claim in claims.items():
        seconds = part.results.training.get(variant, {}).get("seconds", 0.0)
        claim["train_minutes_of_first_seed"] = round(seconds / 60, 1)
    write(recipe, claims)


def pool(stage: Stage, name: str, recipes: list[str]) -> None:
    """The rows that several recipes have, over all their test clips, as results/<name>/."""
    check_name("--pool: the name", name)
    stages = [
        replace(stage, config=load_config(stage.params, [f"recipe={recipe}"])) for recipe in recipes
    ]
    parts = [part_of(each) for each in stages]
    command = f"python -m pipelines.results --pool {name} {' '.join(recipes)}"
    write(name, claims_of(parts, {"recipe": name, **facts(command)}))
    for each, part in zip(stages, parts, strict=True):
        left_out = left_out_of(each, part)
        if left_out:
            print(f"note: {each.config.recipe} has no evaluation of {', '.join(left_out)}")


def part_of(stage: Stage) -> Part:
    """The runs that a recipe has, and where their per-clip records lie."""
    return Part(results_of(stage), stage.artifacts / "evaluation")


def left_out_of(stage: Stage, part: Part) -> list[str]:
    """What the recipe compares and nobody has evaluated."""
    return [v for v in stage.config.compare if v not in part.results.models]


def facts(command: str) -> dict[str, Any]:
    """What is the same for all rows."""
    hardware = {k: lineage.hardware()[k] for k in ("cores", "gpu")}
    return {"hardware": hardware, "command": command}


def write(name: str, claims: dict[str, Any]) -> None:
    """One file a row, and the table on the screen."""
    folder = ROOT / "results" / name
    for order, (variant, claim) in enumerate(claims.items()):
        write_json(folder / f"{variant}.json", {**claim, "order": order})
    print(claims_table(claims))
    print(f"written to {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--pool", nargs="+", metavar="NAME")
    pooled, words = parser.parse_known_args()
    if pooled.pool is None:
        sys.exit(run_stage("results", main, words))
    name, *recipes = pooled.pool
    sys.exit(run_stage("results", lambda stage: pool(stage, name, recipes), words))
