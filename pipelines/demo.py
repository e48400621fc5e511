"""From a fresh clone to the report: lay the sample down where no data is, `dvc repro`, show it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pipelines._stage import ROOT, Stage, StageError, run_stage


def main(stage: Stage) -> None:
    """Run the whole pipeline on the data of params.yaml, or on the synthetic sample."""
    start = time.monotonic()
    if _is_empty(stage.data):
        if stage.config.recipe != "sample":
            raise StageError(
                f"{stage.data} holds no data for recipe {stage.config.recipe}; put the files or a "
                "link to them there, or go back with `python -m pipelines.recipe sample`"
            )
        print(f"{stage.data} holds no data: writing the synthetic sample there", flush=True)
        _run("-m", "pipelines.sample")
    _run("-m", "dvc", "repro")
    page = stage.require(stage.artifacts / "report" / "index.html", "report")
    _run("-m", "pipelines.report", "--table")
    print(f"\nReport: {page}")
    print(
        "Runs:   mlflow ui --backend-store-uri sqlite:///mlflow.db   (then open the address shown)"
    )
    print(f"Done in {time.monotonic() - start:.0f} s")


def _is_empty(folder: Path) -> bool:
    return not folder.exists() or not any(folder.iterdir())


def _run(*words: str) -> None:
    """Run this interpreter's command with its folder first on PATH, so stages use it too."""
    here = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": here + os.pathsep + os.environ.get("PATH", "")}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment)
    if done.returncode:
        raise StageError(f"`{' '.join(words[1:])}` ended with status {done.returncode}; see above")


if __name__ == "__main__":
    sys.exit(run_stage("demo", main))
