"""Reads what the stages left under `artifacts/`; what is missing becomes a note on the page."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.errors import UserError
from components.evaluation.comparable import differences_in_terms
from components.evaluation.gallery import Gallery, read_gallery
from components.evaluation.suite import is_current
from components.reporting.over_seeds import summarise_seeds


class ReportError(UserError):
    """There is nothing to report, or a file is not what its stage writes."""


@dataclass
class Results:
    """All figures of one recipe. A run is one variant with one seed (`amr-s0`).

    models:   the evaluation of each variant's first seed, by variant, the main one first
    main:     the variant that the headline is about
    runs:     every comparable evaluation, by run
    curves, history, training: of the same run as in `models`, by variant
    galleries: clips before and after attacks, of the same run, by variant
    trials:   rows of `tune/trials.csv`; best: `tune/best.yaml`; search: `tune/tune.json`
    seeds:    means, spread and paired differences over seeds, where there are several
    pictures: the search's plots, PNG bytes by name
    index, registered: the JSON files of these stages
    notes:    what is missing or left out, and what to do about it
    """

    models: dict[str, dict[str, Any]]
    main: str
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    galleries: dict[str, Gallery] = field(default_factory=dict)
    trials: list[dict[str, str]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    registered: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run_of(self, variant: str) -> str:
        """The run that stands for a variant in the table of attacks."""
        return f"{variant}-s{self.models[variant]['seed']}"


def read_results(
    artifacts: Path, variants: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Results:
    """Everything the report shows.

    variants, seeds: what belongs into the table (`compare` and `seeds`); other runs in the folder
        are left out. Empty: all that are there.
    Raises ReportError without one readable evaluation.
    """
    folder = artifacts / "evaluation"
    files = [p for p in sorted(folder.glob("*.json")) if not p.stem.endswith("_curves")]
    found = {p.stem: _evaluation(p) for p in files}
    chosen = {
        run: body
        for run, body in found.items()
        if "recipe" not in body  # somebody's own model, evaluated in a notebook
        or ((not variants or body["variant"] in variants) and (not seeds or body["seed"] in seeds))
    }
    if not chosen:
        raise ReportError(
            f"{folder} holds no evaluation"
            + (f" of {', '.join(variants)}" if found else "")
            + "; run `python -m pipelines.evaluate` (or `dvc repro`)"
        )
    notes: list[str] = []
    registered = _optional_json(artifacts / "registered.json", "register", notes)
    order = list(dict.fromkeys([*variants, *sorted(b["variant"] for b in chosen.values())]))
    main = str(registered.get("variant", "amr"))
    order.sort(key=lambda variant: variant != main)
    ranked = sorted(chosen, key=lambda r: (order.index(chosen[r]["variant"]), chosen[r]["seed"]))
    runs = _comparable({run: chosen[run] for run in ranked}, notes)
    models: dict[str, dict[str, Any]] = {}
    for body in runs.values():
        models.setdefault(body["variant"], body)
    results = Results(models, next(iter(models)), runs, registered=registered, notes=notes)
    results.index = _optional_json(artifacts / "index.json", "index", notes)
    for variant, body in models.items():
        run = results.run_of(variant)
        train = artifacts / "train" / run
        stage = f"train variant={variant} seed={body['seed']}"
        results.curves[variant] = _optional_json(folder / f"{run}_curves.json", "evaluate", notes)
        shown = folder / f"{run}_gallery.arrow"
        if shown.is_file():
            results.galleries[variant] = read_gallery(shown)
        else:
            notes.append(_missing(shown, f"evaluate variant={variant} seed={body['seed']}"))
        results.history[variant] = _optional_csv(train / "history.csv", stage, notes)
        results.training[variant] = _optional_json(train / "metrics.json", stage, notes)
    older = [
        run
        for run, body in runs.items()
        if not is_current(body.get("suite", ""), body.get("suite_hash", ""))
    ]
    if older:
        notes.append(
            f"{', '.join(older)}: measured with the suite `{runs[older[0]]['suite']}` as it was "
            "before; `python -m pipelines.evaluate` measures with the present one"
        )
    results.trials = _optional_csv(artifacts / "tune" / "trials.csv", "tune", notes)
    tune = artifacts / "tune"
    if (tune / "best.yaml").is_file():
        results.best = yaml.safe_load((tune / "best.yaml").read_text()) or {}
    if (tune / "tune.json").is_file():
        results.search = _json(tune / "tune.json", "tune")
    results.seeds = summarise_seeds(folder, runs, notes)
    results.pictures = {path.stem: path.read_bytes() for path in sorted(tune.glob("*.png"))}
    return results


def _evaluation(path: Path) -> dict[str, Any]:
    body = _with(path, "evaluate", "clips", "clean_acc", "robust_acc", "worst")
    # A summary of a model of the user's own, made in a notebook, may name neither.
    return {"variant": path.stem.rpartition("-s")[0] or path.stem, "seed": 0, **body}


def _comparable(runs: dict[str, dict[str, Any]], notes: list[str]) -> dict[str, dict[str, Any]]:
    """The runs that may stand beside the first one; the others become notes."""
    first = next(iter(runs))
    kept = {}
    for run, body in runs.items():
        terms = differences_in_terms(runs[first], body)
        if not terms:
            kept[run] = body
            continue
        notes.append(
            f"{run} was evaluated with another {' and '.join(terms)} than {first} and is left out; "
            f"`python -m pipelines.evaluate variant={body['variant']} seed={body['seed']}` "
            "evaluates it with the present settings"
        )
    return kept


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
