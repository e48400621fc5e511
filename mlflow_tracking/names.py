"""The names of metrics and parameters in MLflow: one scheme, and values that MLflow takes.

<split>/clean_acc                           train, val or test
<split>/robust_acc/<cell>                   cell: rgb, skeleton, both, worst
<split>/robust_acc/<attack>/<cell>
<split>/weight/<stage>/<modality>[/<attack>/<cell>]
<split>/loss, time/..., system/...
<run>/<the above>                           on a run above others
"""

import getpass
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from components.attacks import CELLS, MODALITIES
from mlflow_tracking.store import redact

PARAM_LIMIT = 6000
TAG_LIMIT = 5000
KEY_LIMIT = 250
SECRET = re.compile(
    r"(^|[._-])(password|passwd|secret|token|credential|api_?key|access_?key)", re.I
)


def robust(split: str, cell: str, attack: str = "") -> str:
    """`test/robust_acc/pgd20/rgb`, or `test/robust_acc/rgb` for the worst over attacks."""
    return "/".join(part for part in (split, "robust_acc", attack, cell) if part)


def clean_name(name: str) -> str:
    """`name` with what MLflow forbids in keys replaced by "_", and not too long."""
    return re.sub(r"[^\w\-. /:]", "_", name).strip("/")[:KEY_LIMIT]


def text(key: str, value: Any, limit: int = PARAM_LIMIT) -> str:
    """`value` as MLflow stores it: no secrets, and a mark where it was cut."""
    if SECRET.search(key) and value not in ("", None):
        return "***"
    plain = value if isinstance(value, str) else json.dumps(value, default=str)
    plain = redact(plain)
    if len(plain) <= limit:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:12]
    mark = f"... (cut; {len(plain)} characters, sha256 {digest})"
    return plain[: limit - len(mark)] + mark


def texts(values: Mapping[str, Any], limit: int = PARAM_LIMIT) -> dict[str, str]:
    """All `values` by clean name."""
    return {clean_name(key): text(key, value, limit) for key, value in values.items()}


def origin(stage: str) -> dict[str, str]:
    """The tags by which MLflow shows what made a run, and who."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a container's user without a name
    return {
        "mlflow.source.name": f"python -m pipelines.{stage}",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user,
    }


def epoch_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one epoch's row of training; those that it lacks are left out."""
    columns = {
        "train/loss": "loss",
        "train/clean_acc": "train_clean_acc",
        "train/robust_acc": "train_robust_acc",
        "val/clean_acc": "val_clean_acc",
        **{
            robust("val", cell): f"val_robust_acc_{cell}"
            for cell in ("rgb", "skeleton", "both", "worst")
        },
        "time/epoch_s": "seconds",
        "time/clips_per_s": "clips_per_s",
        "train/lr": "lr",
        "train/steps": "steps",
        **{f"train/grad/{m}": f"{m}_grad" for m in MODALITIES},
        **{
            f"streams/{m}/{figure}": f"val_{m}_{figure}"
            for m in MODALITIES
            for figure in ("acc_clean", "acc_both", "reliance")
        },
        **{f"streams/weight/{case}": f"val_weight_{case}" for case in ("clean", *CELLS)},
        **{f"streams/weight_std/{case}": f"val_weight_std_{case}" for case in ("clean", *CELLS)},
        "streams/weight_contrast": "val_weight_contrast",
    }
    return {name: float(row[key]) for name, key in columns.items() if row.get(key) is not None}


def evaluation_metrics(summary: Mapping[str, Any], split: str = "test") -> dict[str, float]:
    """The metrics of an evaluation's summary (`artifacts/evaluation/<model>.json`)."""
    metrics = {f"{split}/clean_acc": summary["clean_acc"]["value"]}
    for attack, cells in summary.get("robust_acc", {}).items():
        for cell, accuracy in cells.items():
            metrics[robust(split, cell, attack)] = accuracy["value"]
    for cell, accuracy in summary.get("worst", {}).items():
        metrics[robust(split, cell)] = accuracy["value"]
    known = {name: value for name, value in metrics.items() if value is not None}
    cells = [
        known[name] for cell in summary.get("worst", {}) if (name := robust(split, cell)) in known
    ]
    return {**known, robust(split, "worst"): min(cells)} if cells else known


def weight_metrics(summary: Mapping[str, Any], split: str = "test") -> dict[str, float]:
    """Mean weight of the video by stage, clean and under attack (the skeleton has the rest)."""
    weights = summary.get("weights") or {}
    metrics = {}
    for stage, groups in weights.get("clean", {}).items():
        metrics[f"{split}/weight/{stage}/rgb"] = sum(groups) / len(groups)
    for attack, cells in weights.get("attacked", {}).items():
        for cell, stages in cells.items():
            for stage, groups in stages.items():
                mean = sum(groups) / len(groups)
                metrics[f"{split}/weight/{stage}/rgb/{attack}/{cell}"] = mean
    return metrics
