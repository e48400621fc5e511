"""From a fresh clone to the report: lay the sample down where no data is, `dvc repro`, show it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_tracking import store
from mlflow_tracking.view import LOCAL, VIEW_TAG, view_address
from pipelines._stage import ROOT, Stage, StageError, run_stage
from pipelines.report import is_synthetic, results_of

STOP_SECONDS = 4.0  # for a command below to end after Ctrl-C


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
    print(f"\nDone in {time.monotonic() - start:.0f} s.")
    print(story(results_of(stage).models, synthetic=is_synthetic(stage.data)))
    print(f"Page: {page}")
    print(f"Runs, the most robust first: {runs(stage)}")
    print(
        "Next: put NTU-RGB+D's folders, or a link to them, into data/ntu/ and run `python -m "
        "pipelines.recipe ntu60 && dvc repro`; other data sets: docs/data.md"
    )


def runs(stage: Stage) -> str:
    """Where a browser shows the evaluated models, and the command that it needs for a file."""
    uri = store.tracking_uri(stage.config.tracking)
    try:
        store.require_answer(uri)
    except store.Unreachable as error:
        return f"later, {error}"
    client = store.client(uri)
    with store.turn(uri):
        number = store.experiment_id(client, uri, stage.config.tracking.experiment)
        for key, value in VIEW_TAG.items():  # of an experiment from before, or with a view changed
            client.set_experiment_tag(number, key, value)
    if uri.startswith("http"):
        return view_address(store.redact(uri), number)
    file = store.sqlite_file(uri)
    after = f"   (after `{ui_command(file)}`)" if file else "   (with an MLflow server there)"
    return view_address(LOCAL, number) + after


def ui_command(file: Path) -> str:
    """What shows a store of one file, as typed in the project's folder."""
    place = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return f"mlflow ui --backend-store-uri sqlite:///{place}"


def story(models: Mapping[str, Mapping[str, Any]], *, synthetic: bool) -> str:
    """One sentence with each variant's accuracy, the one that attacks break most first.

    models: evaluations by variant, as `read_results` gives them
    """
    order = sorted(models, key=lambda name: models[name]["worst"]["both"]["value"])
    parts = [
        f"{name} {100 * models[name]['clean_acc']['value']:.0f} % -> "
        f"{100 * models[name]['worst']['both']['value']:.0f} %"
        for name in order
    ]
    clips = max(body["clips"] for body in models.values())
    what = "synthetic test clips" if synthetic else "test clips"
    return (
        f"What happened: right on {clips} {what}, as they are -> when pixels and joints are "
        f"attacked together: {', '.join(parts)}"
    )


def _is_empty(folder: Path) -> bool:
    return not folder.exists() or not any(folder.iterdir())


def _run(*words: str) -> None:
    """Run this interpreter's command with its folder first on PATH, so stages use it too."""
    here = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": here + os.pathsep + os.environ.get("PATH", "")}
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            # A terminal tells the command below as well, which ends by itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            raise
    if status:
        raise StageError(f"`{' '.join(words[1:])}` ended with status {status}; see above")


if __name__ == "__main__":
    sys.exit(run_stage("demo", main))
