"""What README and docs may claim: one JSON a row under `results/`, and the table made of them.

A row names all that its figures hang on: recipe, variant, seeds, commit, clips, attack suite,
checkpoints. A test holds every published table to these files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.attacks import CELLS
from components.errors import UserError
from components.evaluation.bootstrap import over_seeds
from components.evaluation.suite import is_current
from components.evaluation.verdicts import verdicts
from components.reporting.read import Results

COLUMNS = ("clean", *CELLS)


def claims_of(results: Results, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One claim by variant.

    folder: the per-clip records; facts: commit, hardware and what else is the same for all rows
    """
    by_variant: dict[str, list[str]] = {}
    for run, body in results.runs.items():
        by_variant.setdefault(body["variant"], []).append(run)
    tables = {
        run: {cell: verdicts(folder / f"{run}.arrow", cell) for cell in COLUMNS}
        for run in results.runs
    }
    main = by_variant[results.main]
    claims = {}
    for variant, runs in by_variant.items():
        first = results.runs[runs[0]]
        clips = sorted(tables[runs[0]]["clean"])
        rows = {c: [[tables[run][c][clip] for clip in clips] for run in runs] for c in COLUMNS}
        claims[variant] = {
            "recipe": first["recipe"],
            "variant": variant,
            "seeds": [results.runs[run]["seed"] for run in runs],
            "clips": first["clips"],
            "suite": first["suite"],
            "suite_hash": first["suite_hash"],
            "threat": first["threat"],
            "shards": first["shards_fingerprint"],
            "checkpoints": {run: results.runs[run]["checkpoint_sha256"] for run in runs},
            "flags": {run: results.runs[run]["flagged"] for run in runs},
            "figures": {c: _rounded(over_seeds(np.array(rows[c], float))) for c in COLUMNS},
            **facts,
        }
        if variant != results.main and len(runs) == len(main):
            claims[variant][f"{results.main}_minus_this"] = {
                c: _rounded(over_seeds(_pairs(tables, main, runs, c, clips))) for c in COLUMNS
            }
    return claims


def _pairs(
    tables: Mapping[str, Any], ours: list[str], theirs: list[str], cell: str, clips: list[str]
) -> np.ndarray:
    return np.array(
        [
            [float(tables[a][cell][clip]) - float(tables[b][cell][clip]) for clip in clips]
            for a, b in zip(ours, theirs, strict=True)
        ]
    )


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
    head = "variant".ljust(width) + "seeds" + "".join(f"{cell:>22}" for cell in COLUMNS)
    lines = [head]
    for name, claim in claims.items():
        shown = "".join(f"{_shown(claim['figures'][cell]):>22}" for cell in COLUMNS)
        lines.append(f"{name:<{width}}{len(claim['seeds']):>5}{shown}")
    lines.append("")
    for name, claim in claims.items():
        for key, cells in claim.items():
            if key.endswith("_minus_this"):
                label = f"{key.removesuffix('_minus_this')} - {name}"
                shown = "".join(f"{_shown(cells[cell], '+'):>22}" for cell in COLUMNS)
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
