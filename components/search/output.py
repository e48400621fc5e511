"""From a search to files: the table of trials (Arrow, CSV), the winner, the summary."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from components.config import Config, flatten
from components.files import write_arrow, write_csv, write_json, write_text
from components.search.objective import TrialRecord, objectives, pareto, saving, score_of
from components.search.study import Search

COLUMNS = {
    "number": pa.int32(),
    "key": pa.string(),
    "status": pa.string(),
    "default": pa.bool_(),
    "winner": pa.bool_(),
    "pareto": pa.bool_(),
    "epochs": pa.int32(),
    "best_epoch": pa.int32(),
    "robust_acc": pa.float64(),
    "clean_acc": pa.float64(),
    "finalist_robust_acc": pa.float64(),
    "finalist_clean_acc": pa.float64(),
    "passes": pa.float64(),
    "seconds": pa.float64(),
    "error": pa.string(),
}

# What decides among finalists: FGSM and PGD-20, several times the steps of a trial's validation. A
# dearer suite would cost more than the trials, and the test clips meet one anyway.
FINALIST_SUITE = "thin"


def finalists(trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """The best completed trials by the proxy score, at most `count`; the defaults always run too.

    Without the defaults among them, nobody could say whether the search found anything.
    """
    ranked = sorted(
        (t for t in trials if t.status == "completed" and score_of(t)), key=_proxy, reverse=True
    )
    chosen = ranked[:count]
    return chosen + [t for t in ranked if t.default and t not in chosen]


def is_scored(config: Config, trial: TrialRecord) -> bool:
    """Whether the second rung has scored it, with today's suite and the clips of the settings."""
    scored = trial.finalist or {}
    wanted = (FINALIST_SUITE, config.train.val_clips)
    return (scored.get("suite"), scored.get("limit")) == wanted


def winner(config: Config, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best by the second rung; by the proxy where no trial got that far; None without any."""
    scored = [t for t in trials if is_scored(config, t)]
    if scored:
        return max(scored, key=lambda t: (*_final(t), -t.number))
    completed = [t for t in trials if t.status == "completed" and score_of(t)]
    rest = [t for t in trials if t.status in ("stopped", "open") and score_of(t)]
    return max(completed or rest, key=_proxy, default=None)


def table(config: Config, trials: Sequence[TrialRecord]) -> pa.Table:
    """One row a trial, in order of numbers; a column a parameter, named as in params.yaml.

    A trial that left a parameter alone has the settings' value there. Lists are JSON text.
    """
    scores = [score_of(trial) for trial in trials]
    front = iter(pareto([objectives(s) for s in scores if s]))
    best, flat = winner(config, trials), flatten(config)
    rows: list[dict[str, Any]] = []
    for trial, score in zip(trials, scores, strict=True):
        final = trial.finalist or {}
        rows.append(
            {
                "number": trial.number,
                "key": trial.key,
                "status": trial.status,
                "default": trial.default,
                "winner": trial is best,
                "pareto": next(front) if score else False,
                "epochs": len(trial.rows),
                "best_epoch": score.epoch if score else None,
                "robust_acc": score.robust if score else None,
                "clean_acc": score.clean if score else None,
                "finalist_robust_acc": final.get("robust", {}).get("value"),
                "finalist_clean_acc": final.get("clean", {}).get("value"),
                "passes": score.passes if score else 0.0,
                "seconds": trial.seconds,
                "error": trial.error,
            }
        )
    columns = {n: pa.array([row[n] for row in rows], kind) for n, kind in COLUMNS.items()}
    for name in config.tune.space:
        columns[name] = _column([trial.values.get(name, flat[name]) for trial in trials])
    return pa.table(columns)


def summary(config: Config, search: Search, ended: str) -> dict[str, Any]:
    """`tune.json`: what was searched, what it cost, what it found. `ended` says why it ended."""
    trials = search.records()
    best = winner(config, trials)
    score = score_of(best) if best else None
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    default = next((t for t in trials if t.default), None)
    return {
        "enabled": True,
        "identity": search.folder.name,
        "search": config.tune.search,
        "ended": ended,
        "trials": len(trials),
        "by_status": counts,
        "seconds": round(search.wall_seconds, 1),
        "device_hours": sum(t.seconds for t in trials) * config.tune.workers / 3600,
        **saving(trials, config.tune.epochs),
        "winner": best.key if best else None,
        "winner_is_default": bool(best and best.default),
        "best": best.values if best else {},
        "val_robust_acc": score.robust if score else None,
        "val_clean_acc": score.clean if score else None,
        "finalist": best.finalist if best else None,
        "default_finalist": default.finalist if default else None,
    }


def write(folder: Path, config: Config, search: Search, ended: str) -> dict[str, Any]:
    """best.yaml, trials.arrow, trials.csv, tune.json; returns the summary."""
    trials = search.records()
    best = winner(config, trials)
    body = summary(config, search, ended)
    write_table(folder, table(config, trials))
    write_text(folder / "best.yaml", yaml.safe_dump(best.values if best else {}, sort_keys=True))
    write_json(folder / "tune.json", body)
    return body


def write_disabled(folder: Path, config: Config) -> None:
    """The same files for a search that is switched off: no trials, and nothing to change."""
    write_table(folder, table(config, []))
    write_text(folder / "best.yaml", "{}\n")
    write_json(folder / "tune.json", {"enabled": False, "trials": 0})


def write_table(folder: Path, trials: pa.Table) -> None:
    """trials.arrow (IPC file) and trials.csv."""
    write_arrow(folder / "trials.arrow", trials)
    write_csv(folder / "trials.csv", trials.column_names, trials.to_pylist())


def write_trial(folder: Path, trial: TrialRecord, *, running: bool = False) -> None:
    """One trial with its epochs as `folder`/<key>.json, for whoever shows the search as it runs.

    `started_at`, `ended_at` and each row's `finished_at` are seconds since 1970.
    """
    write_json(
        folder / f"{trial.key}.json",
        {
            "key": trial.key,
            "number": trial.number,
            "status": "running" if running and not trial.over else trial.status,
            "default": trial.default,
            "values": trial.values,
            "error": trial.error,
            "started_at": trial.started_at,
            "ended_at": trial.ended_at,
            "rows": [trial.rows[epoch] for epoch in sorted(trial.rows)],
        },
    )


def _column(values: list[Any]) -> pa.Array:
    values = [json.dumps(v) if isinstance(v, list | tuple) else v for v in values]
    kinds = {type(v) for v in values}
    if not kinds:
        return pa.array(values, pa.string())
    if kinds <= {int, float} and float in kinds:
        return pa.array([float(v) for v in values])
    return pa.array(values if len(kinds) == 1 else [json.dumps(v) for v in values])


def _proxy(trial: TrialRecord) -> tuple[float, float, int]:
    score = score_of(trial)
    assert score is not None
    return score.robust, score.clean, -trial.number


def _final(trial: TrialRecord) -> tuple[float, float]:
    assert trial.finalist is not None
    return trial.finalist["robust"]["value"], trial.finalist["clean"]["value"]
