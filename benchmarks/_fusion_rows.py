"""The rows of the fusion tables: what each changes of `params.yaml`, and nothing else."""

from typing import Any

FUSIONS = ("late", "concat", "mmtm", "minsim", "exfmem", "minsim_exfmem", "fim")


def _amr(**knobs: Any) -> dict[str, Any]:
    return {"model.fusion": "amr", **{f"model.amr.{k}": v for k, v in knobs.items()}}


ROWS: dict[str, dict[str, Any]] = {
    "amr": {"model.fusion": "amr"},
    **{name: {"model.fusion": name} for name in FUSIONS},
    **{f"{name}-natural": {"model.fusion": name, "train.method": "natural"} for name in FUSIONS},
    "late-no-heads": {"model.fusion": "late", "model.aux_heads": False},
    # The ablation of AMR, from late fusion upwards, one knob at a time.
    "amr-logits": _amr(stage_weights=False, stage_gates=False, logit_floor=0.1),
    "amr-logits-floor.4": _amr(stage_weights=False, stage_gates=False, logit_floor=0.4),
    "amr-doubt": _amr(stage_weights=False, stage_gates=False, logit_floor=0.49, doubt=0.1),
    "amr-per-class": _amr(stage_weights=False, stage_gates=False, logit_floor=0.3, per_class=True),
    "amr-gates": _amr(stage_weights=False, stage_gates=True, logits="mean"),
    "amr-stage-floor.35": _amr(stage_gates=False, floor=0.35, logits="mean"),
    "amr-stream-drop": _amr(
        stage_weights=False, stage_gates=False, logit_floor=0.4, stream_drop=0.2
    ),
    "amr-balance": _amr(stage_weights=False, stage_gates=False, logit_floor=0.1, balance=1.0),
    "amr-mix": {
        **_amr(stage_weights=False, stage_gates=False, logit_floor=0.3),
        "train.attack.modalities": "mix",
    },
}
