"""What README and docs may claim: one JSON a row under `results/`, and the table made of them.

A row names all that its figures hang on: recipe, variant, seeds, commit, clips, attack suite,
checkpoints. A test holds every published table to these files.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.attacks import CELLS
from components.errors import UserError
from components.evaluation.bootstrap import over_seeds
from components.evaluation.comparable import differences_in_terms
from components.evaluation.suite import is_current
from components.evaluation.verdicts import verdicts
from components.reporting.read import Results

MEAN = "mean"  # of clean and the three attacked cells, clip by clip
COLUMNS = ("clean", *CELLS, MEAN)


@dataclass(frozen=True)
class Part:
    """The runs of one recipe, and the folder of their per-clip records."""

    results: Results
    folder: Path

    @property
    def recipe(self) -> str:
        return str(next(iter(self.results.runs.values()))["recipe"])

    def runs_of(self, variant: str) -> dict[int, str]:
        """By seed, in their order."""
        runs = self.results.runs.items()
        return {body["seed"]: run for run, body in runs if body["variant"] == variant}


def claims_of(parts: Sequence[Part], facts: Mapping[str, Any]) -> dict[str, Any]:
    """One claim by variant.

    parts: one recipe, or several whose test clips are taken together, as the folds of a data set;
        then a row has the variants and seeds that all of them have. Two rows are compared over
        the seeds that both have.
    facts: hardware and what else is the same for all rows
    Raises UserError for parts that were attacked otherwise, share test clips, or lack the main
    variant, and for evaluations of which nobody knows the code.
    """
    _check_same_terms(parts)
    first, *others = parts
    found = {v: _common(set(p.runs_of(v)) for p in parts) for v in first.results.models}
    seeds = {variant: shared for variant, shared in found.items() if shared}
    if first.results.main not in seeds:
        raise UserError(
            f"{', '.join(p.recipe for p in others)}: no evaluation of {first.results.main} with a "
            f"seed of {first.recipe}; run `dvc repro` with each of them"
        )
    main, *rivals = seeds
    rows = {v: _verdicts(parts, v, seeds[v]) for v in seeds}
    claims = {v: _claim(parts, v, seeds[v], rows[v]) | dict(facts) for v in seeds}
    for variant in rivals:
        both = [seed for seed in seeds[main] if seed in seeds[variant]]
        ours, theirs = ([seeds[v].index(seed) for seed in both] for v in (main, variant))
        if both:
            claims[variant][f"{main}_minus_this"] = {
                c: _rounded(over_seeds(rows[main][c][ours] - rows[variant][c][theirs]))
                for c in COLUMNS
            }
    return claims


def _common(sets: Iterable[set[int]]) -> list[int]:
    return sorted(set.intersection(*sets))


def _check_same_terms(parts: Sequence[Part]) -> None:
    one = next(iter(parts[0].results.runs.values()))
    for part in parts[1:]:
        other = next(iter(part.results.runs.values()))
        terms = [
            t for t in differences_in_terms(one, other) if t in ("threat model", "attack suite")
        ]
        if terms:
            raise UserError(
                f"{part.recipe} was evaluated with another {' and '.join(terms)} than "
                f"{parts[0].recipe}; evaluate both with the same before taking them together"
            )


def _verdicts(parts: Sequence[Part], variant: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """By column, [seeds, clips of all parts]: did the clip stand?"""
    by_seed = []
    for seed in seeds:
        columns: dict[str, list[float]] = {c: [] for c in COLUMNS}
        counted: dict[tuple[str, str], int] = {}  # other data may have clips of the same names
        for place, part in enumerate(parts):
            run = part.runs_of(variant)[seed]
            data = part.results.runs[run]["shards_fingerprint"]
            tables = {c: verdicts(part.folder / f"{run}.arrow", c) for c in ("clean", *CELLS)}
            for clip in sorted(tables["clean"]):
                before = counted.setdefault((data, clip), place)
                if before != place:
                    raise UserError(
                        f"clip {clip} is tested by {parts[before].recipe} and again by "
                        f"{part.recipe}; take recipes together that test different clips"
                    )
                for column, table in tables.items():
                    columns[column].append(float(table[clip]))
                columns[MEAN].append(sum(t[clip] for t in tables.values()) / len(tables))
        by_seed.append(columns)
    return {c: np.array([columns[c] for columns in by_seed]) for c in COLUMNS}


def _claim(
    parts: Sequence[Part], variant: str, seeds: Sequence[int], rows: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    bodies = {
        (part.recipe, run): part.results.runs[run]
        for part in parts
        for seed, run in part.runs_of(variant).items()
        if seed in seeds
    }
    first = next(iter(bodies.values()))
    alone = len(parts) == 1
    named = {run if alone else f"{recipe}/{run}": body for (recipe, run), body in bodies.items()}
    by_recipe = {recipe: body for (recipe, _), body in bodies.items()}
    shards = {recipe: body["shards_fingerprint"] for recipe, body in by_recipe.items()}
    claim = {
        "recipe": first["recipe"],
        "variant": variant,
        "seeds": list(seeds),
        "clips": sum(body["clips"] for body in by_recipe.values()),
        "suite": first["suite"],
        "suite_hash": first["suite_hash"],
        "threat": first["threat"],
        "shards": first["shards_fingerprint"] if alone else shards,
        "commits": _commits(named),
        "checkpoints": {run: body["checkpoint_sha256"] for run, body in named.items()},
        "flags": {run: body["flagged"] for run, body in named.items()},
        "figures": {c: _rounded(over_seeds(rows[c])) for c in COLUMNS},
    }
    if not alone:
        claim["parts"] = {recipe: body["clips"] for recipe, body in by_recipe.items()}
    return claim


def _commits(named: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The commits whose code evaluated these runs."""
    unknown = [run for run, body in named.items() if not body.get("commit")]
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: evaluated by code of no known commit, and a claim names it; "
            "run `python -m pipelines.evaluate` in a git checkout"
        )
    return sorted({body["commit"] for body in named.values()})


def _rounded(figure: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("value", "std", "low", "high")
    return {k: None if figure[k] is None else round(figure[k], 4) for k in keys} | {
        "per_seed": [round(value, 4) for value in figure["per_seed"]]
    }


def read_claims(folder: Path) -> dict[str, dict[str, Any]]:
    """The claims of one recipe by variant, in the order in which the recipe compares them."""
    claims = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not claims:
        raise UserError(f"{folder} holds no results; `make results RECIPE={folder.name}`")
    return dict(sorted(claims.items(), key=lambda item: item[1].get("order", 0)))


def claims_table(claims: Mapping[str, Mapping[str, Any]]) -> str:
    """A table in plain text, as README and docs print it."""
    width = max(10, *(len(name) for name in claims)) + 2
    head = "variant".ljust(width) + "seeds" + "".join(f"{cell:>21}" for cell in COLUMNS)
    lines = [head]
    for name, claim in claims.items():
        shown = "".join(f"{_shown(claim['figures'][cell]):>21}" for cell in COLUMNS)
        lines.append(f"{name:<{width}}{len(claim['seeds']):>5}{shown}")
    lines.append("")
    for name, claim in claims.items():
        for key, cells in claim.items():
            if key.endswith("_minus_this"):
                label = f"{key.removesuffix('_minus_this')} - {name}"
                shown = "".join(f"{_shown(cells[cell], '+'):>21}" for cell in COLUMNS)
                lines.append(f"{label:<{width + 5}}{shown}")
    older = [
        name
        for name, claim in claims.items()
        if not is_current(claim["suite"], claim["suite_hash"])
    ]
    if older:
        first = claims[older[0]]
        lines += [
            "",
            f"measured with `{first['suite']}` as it was before: {', '.join(older)}",
        ]
    return "\n".join(lines).rstrip()


def _shown(figure: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (f"{100 * figure[k]:{sign}.1f}" for k in ("value", "low", "high"))
    return f"{value} ({low}, {high})"
