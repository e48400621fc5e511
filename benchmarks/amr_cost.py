"""What AMR adds to its backbones, in parameters and FLOPs: at most 3 %.

    python -m benchmarks amr_cost

The difference between the AMR of params.yaml and late fusion of the same two backbones, over the
backbones alone. FLOPs by `torch.utils.flop_counter` (2 per multiply-add of a convolution or matrix
product) on the meta device.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._bench import ROOT, Result
from components.config import load_config, to_dict
from components.models import TwoStream, build_model

GOAL = 0.03
# video net, skeleton net, (frames, side) of the video, frames of the skeleton
PAIRS = (
    ("small_video", "small_skeleton", (8, 48), 32),
    ("r2plus1d_18", "hcn", (16, 112), 32),
    ("inflated_resnet50", "hcn", (8, 224), 32),
    ("r3d_18", "ctrgcn", (16, 112), 64),
)


def measure(settings: dict[str, Any], inputs: tuple[Tensor, ...]) -> dict[str, dict[str, int]]:
    """Parameters and FLOPs of one clip: the whole model's and the backbones'."""
    with torch.device("meta"):
        model = build_model(settings).eval()
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    by_module = counter.get_flop_counts()
    backbones = sum(
        sum(counts.values())
        for name, counts in by_module.items()
        if _is_stage(name, model) or name.endswith((".rgb.stem", ".rgb.conv1"))
    )
    return {
        "flops": {"all": counter.get_total_flops(), "backbones": backbones},
        "parameters": {"all": _count(model), "backbones": _count(model.rgb, model.skeleton)},
    }


def _is_stage(name: str, model: TwoStream) -> bool:
    """Whether a counted module is a whole stage of a backbone (its parts are counted within it)."""
    stages = {
        f"{type(model).__name__}.{path}"
        for path, module in model.named_modules()
        if any(module is stage for stage in [*model.rgb.stages, *model.skeleton.stages])
    }
    return name in stages


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def run(args: list[str]) -> Result:
    """All pairs; `args` are overrides of params.yaml, e.g. model.time_parts=4."""
    settings = to_dict(load_config(str(ROOT / "params.yaml"), args).model)
    settings |= {"num_classes": 60}
    sides: dict[str, Any] = {}
    for rgb, skeleton, (frames, side), length in PAIRS:
        inputs = (
            torch.rand(1, 3, frames, side, side, device="meta"),
            torch.rand(1, 3, length, 25, 2, device="meta"),
            torch.ones(1, length, 2, dtype=torch.bool, device="meta"),
        )
        chosen = settings | {"rgb": rgb, "skeleton": skeleton, "skeleton_frames": length}
        amr = measure(chosen | {"fusion": "amr"}, inputs)
        late = measure(chosen | {"fusion": "late"}, inputs)
        row: dict[str, float] = {}
        for what in ("flops", "parameters"):
            extra, base = amr[what]["all"] - late[what]["all"], late[what]["backbones"]
            row |= {what: base, f"amr_{what}": extra, f"share_of_{what}": extra / base}
        sides[f"{rgb} + {skeleton}"] = row
    shares = [v for row in sides.values() for k, v in row.items() if k.startswith("share_of_")]
    return Result(
        name="amr_cost",
        ratio=max(shares),
        goal=GOAL,
        sense="<=",
        sides=sides,
        unit="share of the backbones",
        notes="what AMR adds to the backbones; the largest share counts",
    )
