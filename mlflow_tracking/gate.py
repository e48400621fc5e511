"""May this model become champion? Reasons for and against, from the evaluations alone.

It may when its evaluation is whole (all test clips, all three cells), the gradient-masking checks
had clips enough to tell and none failed, the thresholds of `params.yaml` hold, and neither its
clean accuracy nor its worst-case robust accuracy in any cell is below the present champion's
beyond the 95 % interval of the difference.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from components.config.evaluate import RegisterSection
from components.evaluation.comparable import differences_in_terms
from components.evaluation.metrics import paired_difference
from components.evaluation.verdicts import verdicts

CELLS = ("rgb", "skeleton", "both")


@dataclass(frozen=True)
class Evaluated:
    """A model's evaluation.

    summary: `artifacts/<recipe>/evaluation/<run>.json`; {} for a model without an evaluation
    records: its per-clip rows, where at hand: they make the comparison paired and so sharper
    """

    name: str
    summary: Mapping[str, Any]
    records: pa.Table | None


@dataclass(frozen=True)
class Check:
    """One condition of the gate."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """The gate's answer: `promote`, and every condition with its reason."""

    promote: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """What spoke against it; when nothing did, what spoke for it."""
        against = [check.reason for check in self.checks if not check.passed]
        return against or [check.reason for check in self.checks]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `registered.json` and the report."""
        return {
            "promote": self.promote,
            "reasons": self.reasons,
            "checks": [asdict(check) for check in self.checks],
        }


def decide(
    candidate: Evaluated,
    champion: Evaluated | None,
    limits: RegisterSection,
    test_clips: int | None,
) -> Decision:
    """The gate. champion: None when there is none yet; test_clips: size of the test split."""
    summary = candidate.summary
    checks = [_whole(summary, test_clips), _no_flags(summary)]
    checks += [
        _at_least("clean accuracy", summary["clean_acc"], limits.min_clean_acc),
        _at_least("worst-case robust accuracy", _worst(summary), limits.min_robust_acc),
    ]
    if champion is None:
        checks.append(Check("champion", True, "there is no champion yet"))
    else:
        checks += _against(candidate, champion, limits.replace)
    return Decision(all(check.passed for check in checks), tuple(checks))


def raised_flags(summary: Mapping[str, Any], status: str = "fail") -> list[str]:
    """The gradient-masking checks that ended as `status`, by name (docs/flags.md)."""
    return sorted(flag["check"] for flag in summary.get("flags", ()) if flag["status"] == status)


def _whole(summary: Mapping[str, Any], test_clips: int | None) -> Check:
    missing = [cell for cell in CELLS if cell not in summary.get("worst", {})]
    clips = summary["clips"]
    if missing:
        return Check("coverage", False, f"not evaluated under attack on: {', '.join(missing)}")
    if test_clips is None:
        return Check("coverage", False, "the size of the test split is not known")
    share = f"{clips} of {test_clips} test clips evaluated"
    return Check("coverage", clips == test_clips, share)


def _no_flags(summary: Mapping[str, Any]) -> Check:
    # Checks on the records alone are always made; this one needs the model itself.
    if not any(flag["check"] == "random_output" for flag in summary.get("flags", ())):
        return Check("flags", False, "the gradient-masking checks were not run")
    raised, untold, warnings = (
        raised_flags(summary, status) for status in ("fail", "too-few", "warn")
    )
    parts = [f"gradient-masking flags: {', '.join(raised)}"] if raised else []
    if untold:
        parts.append(
            f"too few rightly classified clips for the gradient-masking checks {', '.join(untold)}"
        )
    reason = "; ".join(parts) or "no flag is up"
    if warnings:
        reason += f" (warnings: {', '.join(warnings)})"
    return Check("flags", not parts, reason)


def _at_least(what: str, accuracy: Mapping[str, Any], least: float) -> Check:
    value = accuracy["value"]
    passed = value is not None and value >= least
    shown = "unknown" if value is None else f"{value:.3f}"
    return Check(what, passed, f"{what} {shown} (at least {least:.3f} asked for)")


def _worst(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    cells = [a for a in summary.get("worst", {}).values() if a["value"] is not None]
    return min(cells, key=lambda a: a["value"]) if cells else {"value": None}


def _against(candidate: Evaluated, champion: Evaluated, replace: bool) -> list[Check]:
    if champion.summary:
        other = differences_in_terms(candidate.summary, champion.summary)
        found = f"was evaluated with another {' and '.join(other)}" if other else ""
    else:
        found = "has no evaluation"
    if found:
        reason = f"{champion.name} {found}, so the figures cannot be compared"
        hint = (
            "; replaced as register.replace asks"
            if replace
            else ("; set register.replace=true once to make this model champion all the same")
        )
        return [Check("comparable", replace, reason + hint)]
    checks = [_no_worse("clean accuracy", candidate, champion, "clean")]
    return checks + [
        _no_worse(f"worst-case robust accuracy ({cell})", candidate, champion, cell)
        for cell in CELLS
        if cell in candidate.summary.get("worst", {}) and cell in champion.summary.get("worst", {})
    ]


def _no_worse(what: str, candidate: Evaluated, champion: Evaluated, cell: str) -> Check:
    value, low, high, kind = _difference(candidate, champion, cell)
    reason = (
        f"{what}: {100 * value:+.1f} points against {champion.name} "
        f"({kind} 95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    )
    return Check(what, high >= 0, reason)


def _difference(
    candidate: Evaluated, champion: Evaluated, cell: str
) -> tuple[float, float, float, str]:
    """Candidate minus champion with its interval: paired by clip where both have records."""
    if candidate.records is not None and champion.records is not None:
        ours, theirs = verdicts(candidate.records, cell), verdicts(champion.records, cell)
        if ours.keys() == theirs.keys() and ours:
            clips = sorted(ours)
            found = paired_difference([ours[c] for c in clips], [theirs[c] for c in clips])
            return found["value"], found["low"], found["high"], "paired"
    a, b = (
        e.summary["clean_acc"] if cell == "clean" else e.summary["worst"][cell]
        for e in (candidate, champion)
    )
    value = a["value"] - b["value"]
    # Newcombe (1998), method 10: the two Wilson intervals joined.
    low = value - math.hypot(a["value"] - a["low"], b["high"] - b["value"])
    high = value + math.hypot(a["high"] - a["value"], b["value"] - b["low"])
    return value, low, high, "unpaired"
