"""Reads what the stages left under `artifacts/`; what is not there becomes a note on the page."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CELLS = ("rgb", "skeleton", "both")


class ReportError(ValueError):
    """There is nothing to report, or a file is not what its stage writes."""


@dataclass
class Results:
    """All figures of one pipeline run.

    models:   `evaluation/<model>.json` by model, the main model first
    main:     the model the headline is about
    curves:   `evaluation/<model>_curves.json` by model
    history:  rows of `train/<model>/history.csv` by model
    training: `train/<model>/metrics.json` by model
    trials:   rows of `tune/trials.csv`; best: `tune/best.yaml`; search: `tune/tune.json`
    seeds:    `seeds/seeds.json`, where several seeds were run
    pictures: the search's plots, PNG bytes by name
    index, registered: the JSON files of these stages
    notes:    what is missing and which command makes it
    """

    models: dict[str, dict[str, Any]]
    main: str
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: list[dict[str, str]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    registered: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_results(artifacts: Path) -> Results:
    """Everything the report shows. Raises ReportError without one readable evaluation."""
    folder = artifacts / "evaluation"
    files = [p for p in sorted(folder.glob("*.json")) if not p.stem.endswith("_curves")]
    if not files:
        raise ReportError(
            f"{folder} holds no evaluation; run `python -m pipelines.evaluate` (or `dvc repro`)"
        )
    models = {
        path.stem: _with(path, "evaluate", "clips", "clean_acc", "robust_acc", "worst")
        for path in files
    }
    notes: list[str] = []
    registered = _optional_json(artifacts / "registered.json", "register", notes)
    main = str(registered.get("model", "amr"))
    main = main if main in models else "amr" if "amr" in models else next(iter(models))
    models = {main: models[main], **models}
    results = Results(models, main, registered=registered, notes=notes)
    results.index = _optional_json(artifacts / "index.json", "index", notes)
    for model in models:
        train = artifacts / "train" / model
        stage = f"train model.fusion={model}"
        results.curves[model] = _optional_json(folder / f"{model}_curves.json", "evaluate", notes)
        results.history[model] = _optional_csv(train / "history.csv", stage, notes)
        results.training[model] = _optional_json(train / "metrics.json", stage, notes)
    results.trials = _optional_csv(artifacts / "tune" / "trials.csv", "tune", notes)
    tune = artifacts / "tune"
    if (tune / "best.yaml").is_file():
        results.best = yaml.safe_load((tune / "best.yaml").read_text()) or {}
    if (tune / "tune.json").is_file():
        results.search = _json(tune / "tune.json", "tune")
    if (artifacts / "seeds" / "seeds.json").is_file():
        keys = ("seeds", "clips", "models", "differences", "suite")
        results.seeds = _with(artifacts / "seeds" / "seeds.json", "seeds", *keys)
    results.pictures = {path.stem: path.read_bytes() for path in sorted(tune.glob("*.png"))}
    return results


def read_curves(artifacts: Path) -> dict[str, dict[str, Any]]:
    """`evaluation/<model>_curves.json` by model; those that an evaluation left empty not."""
    files = sorted((artifacts / "evaluation").glob("*_curves.json"))
    found = {path.stem.removesuffix("_curves"): _json(path, "evaluate") for path in files}
    return {name: curve for name, curve in found.items() if curve.get("eps")}


def _with(path: Path, stage: str, *keys: str) -> dict[str, Any]:
    """A stage's JSON file that has at least these keys; ReportError otherwise."""
    found = _json(path, stage)
    missing = [key for key in keys if key not in found]
    if missing:
        raise ReportError(
            f"{path} lacks {', '.join(missing)}; run `python -m pipelines.{stage}` again"
        )
    return found


def _json(path: Path, stage: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ReportError(
            f"{path} is not valid JSON ({error}); run `python -m pipelines.{stage}` again"
        ) from error
    if not isinstance(found, dict):
        raise ReportError(f"{path} holds a {type(found).__name__}, expected an object")
    return found


def _optional_json(path: Path, stage: str, notes: list[str]) -> dict[str, Any]:
    if path.is_file():
        return _json(path, stage)
    notes.append(_missing(path, stage))
    return {}


def _optional_csv(path: Path, stage: str, notes: list[str]) -> list[dict[str, str]]:
    if not path.is_file():
        notes.append(_missing(path, stage))
        return []
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _missing(path: Path, stage: str) -> str:
    shown = Path(*path.parts[-3:]) if "train" in path.parts else Path(*path.parts[-2:])
    return f"{shown} is not there, so its part is left out; `python -m pipelines.{stage}` makes it"
