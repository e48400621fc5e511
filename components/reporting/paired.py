"""Differences between models on the same clips, from the per-clip records of the evaluation."""

from pathlib import Path
from typing import Any

from components.attacks import CELLS
from components.evaluation.metrics import paired_difference
from components.evaluation.verdicts import verdicts
from components.reporting.read import Results


def differences(artifacts: Path, results: Results) -> list[dict[str, Any]]:
    """Main model minus each other one, clean and per cell; only over the same clips.

    Each: `other`, `cell`, `value`, `low`, `high`, `p`, `n`. A model without records, or with
    other clips, gets a note instead.
    """
    folder = artifacts / "evaluation"
    main = folder / f"{results.run_of(results.main)}.arrow"
    others = [m for m in results.models if m != results.main]
    if not main.is_file():
        if others:
            results.notes.append(f"evaluation/{main.name} is not there: no paired differences")
        return []
    rows = []
    for other in others:
        path = folder / f"{results.run_of(other)}.arrow"
        if not path.is_file():
            results.notes.append(f"evaluation/{path.name} is not there: no difference to {other}")
            continue
        for cell in ("clean", *CELLS):
            ours, theirs = verdicts(main, cell), verdicts(path, cell)
            if ours.keys() != theirs.keys():
                results.notes.append(f"{results.main} and {other} were tested on different clips")
                break
            clips = sorted(ours)
            found = paired_difference([ours[c] for c in clips], [theirs[c] for c in clips])
            rows.append({"other": other, "cell": cell, **found})
    return rows
