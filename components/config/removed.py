"""Settings that are gone, and what became of each: the message for an old file or command.

A setting goes when nobody turns it (its value is a constant beside the code that uses it), when
another says the same, or when it lost its comparisons (docs/research/amr-log.md).
"""

from collections.abc import Mapping
from typing import Any

FITTED = "AMR's weights are fitted on held-out clips, without a constant"
REMOVED = {
    "data.clip_seconds": "use index.clip_seconds",
    "evaluate.curve_eps": "the curves' points are FACTORS in components/evaluation/curves.py",
    "model.amr.doubt": FITTED,
    "model.amr.floor": FITTED,
    "model.amr.temperature": FITTED,
    "model.amr.video_bias": FITTED,
    "model.centre": "skeletons are centred on the mean of the body's joints",
    "model.dropout": "dropout is 0.3, and an argument of build_model",
    "model.view_rotation": "skeletons keep their direction; it is an argument of build_model",
    "ray.max_failures": "a command restarts lost workers up to 3 times; run it again to go on",
    "ray.threads_per_worker": "workers have as many threads as CPUs; use ray.cpus_per_worker",
    "report.compare": "compare variants that differ in train.attack (docs/evaluation.md)",
    "sample.subjects": "the sample has 20 subjects",
    "shard.margin": "the crop's margin is MARGIN in components/ntu/crop.py",
    "tracking.system_interval": "system metrics are sampled every 10 seconds",
    "train.attack.random_start": "PGD starts at a random point; an argument of the attack",
    "train.augment.mirror": "clips are not mirrored; train.augment=false leaves them as they are",
    "train.augment.rotate": "use train.augment; its ranges are in components/datasets/augment.py",
    "train.augment.scale": "use train.augment; its ranges are in components/datasets/augment.py",
    "train.augment.shift": "use train.augment; its ranges are in components/datasets/augment.py",
    "train.augment.temporal_crop": (
        "use train.augment; its ranges are in components/datasets/augment.py"
    ),
    "train.awp": "adversarial weight perturbation lost its comparison",
    "train.beta": "TRADES and MART weigh their robust term by 6",
    "train.compile": "no measured gain; compile a model of your own with torch.compile",
    "train.eps_warmup": "use train.ramp, a share of the epochs",
    "train.grad_clip": "gradients are clipped to a norm of 1",
    "train.label_smoothing": "labels are not smoothed",
    "train.schedule": "the learning rate goes through one cycle",
    "train.weight_decay": "weight decay is 5e-4",
    "tune.asha": "trials that lag behind are always stopped",
    "tune.enabled": "use tune.trials; 0 trains without a search",
    "tune.finalist_clips": "use train.val_clips",
    "tune.finalist_suite": "finalists meet the suite `thin`",
    "tune.val_clips": "use train.val_clips",
    "tune.val_steps": "use train.val_steps",
}


def without_removed(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """Nested sections without the settings that are gone, and the dotted names of those."""
    kept: dict[str, Any] = {}
    gone: list[str] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in REMOVED:
            gone.append(name)
            continue
        if isinstance(value, Mapping):
            below, more = without_removed(value, f"{name}.")
            gone += more
            if more and not below:
                continue  # a section of which nothing is left
            value = below
        kept[key] = value
    return kept, gone


def what_became(key: str) -> str | None:
    """`the setting X is gone: what to do`, or None for a key that never was a setting."""
    gone = [key] if key in REMOVED else [name for name in REMOVED if name.startswith(f"{key}.")]
    if not gone:
        return None
    names = f"settings {', '.join(gone)} are" if len(gone) > 1 else f"setting {gone[0]} is"
    return f"the {names} gone: {REMOVED[gone[0]]}"
