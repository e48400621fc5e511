"""`python -m pipelines.reproduce RUN_ID`: what differs from that run, and does it repeat?"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from components.config import load_config, to_dict
from components.errors import UserError
from mlflow_tracking import lineage, store
from mlflow_tracking.record import FOLDER, newest
from mlflow_tracking.reproduce import Difference, Recorded, compare, differences, read_run
from pipelines._stage import ROOT, StageError, absolute, setup_logging

# What each stage writes under artifacts/; the rest is what it reads.
OUTPUTS = {
    "tune": ("tune",),
    "train": ("train",),
    "evaluate": ("evaluation",),
}
OWN = {FOLDER, "partial", "runs", "report", "bench"}


def main(argv: list[str] | None = None) -> int:
    """Say what differs between a run and what is here; when nothing does, run it again.

    Status 0: the numbers are the same; 1: they are not; 2: something differs, or an error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.reproduce", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run_id", help="as MLflow shows it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. paths.artifacts=/x")
    parser.add_argument("--params", default=str(ROOT / "params.yaml"), help="settings file")
    parser.add_argument("--tolerance", type=float, default=0.0, help="of each number")
    parser.add_argument("--only-compare", action="store_true", help="do not run anything")
    parser.add_argument("--anyway", action="store_true", help="run it though something differs")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    try:
        config = load_config(args.params, args.overrides)
        artifacts = absolute(config.paths.artifacts)
        uri = store.tracking_uri(config.tracking)
        store.require_answer(uri)
        recorded = read_run(store.client(uri), args.run_id)
        found = differences(recorded, lineage.collect(recorded.config, artifacts), config)
        _tell(recorded, found)
        if any(d.blocks for d in found) and not args.anyway:
            print("not run again: make the above the same first, or pass --anyway")
            return 2
        if args.only_compare:
            return 0
        return _again(recorded, artifacts, absolute(config.paths.data), args.tolerance)
    except UserError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2


def _tell(recorded: Recorded, found: list[Difference]) -> None:
    print(f"run {recorded.run_id}: stage {recorded.stage}, model {recorded.model}")
    for d in found:
        mark = "DIFFERS" if d.blocks else "differs (reported only)"
        print(f"  {mark}: {d.what}: {d.there} there, {d.here} here")
    if not found:
        print("  nothing differs from here")


def _again(recorded: Recorded, artifacts: Path, data: Path, tolerance: float) -> int:
    """Run the stage with the run's own settings in a folder of its own; compare all numbers."""
    if recorded.stage not in OUTPUTS:
        raise StageError(
            f"stage {recorded.stage!r} has no numbers to compare; run `dvc repro` instead"
        )
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        folder = Path(temporary) / "artifacts"
        folder.mkdir()
        for entry in artifacts.iterdir():
            if entry.name not in OWN and entry.name not in OUTPUTS[recorded.stage]:
                (folder / entry.name).symlink_to(entry)
        settings = Path(temporary) / "params.yaml"
        settings.write_text(yaml.safe_dump(to_dict(recorded.config)))
        words = [f"paths.artifacts={folder}", f"paths.data={data}"]
        if recorded.model:
            words += [f"variant={recorded.config.variant}", f"seed={recorded.config.seed}"]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                f"pipelines.{recorded.stage}",
                "--params",
                str(settings),
                *words,
            ],
            cwd=ROOT,
            env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{temporary}/mlflow.db"},
        )
        if done.returncode:
            raise StageError(f"stage {recorded.stage} ended with status {done.returncode}")
        again = newest(folder, recorded.stage, recorded.model)
        if again is None:
            raise StageError(f"stage {recorded.stage} logged no run")
        count, lines = compare(recorded, again, tolerance)
    if lines:
        print(f"NOT the same: {len(lines)} numbers differ")
        print("\n".join(f"  {line}" for line in lines[:20]))
        return 1
    print(f"the same: all {count} numbers are equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
