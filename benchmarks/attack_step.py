"""PGD-K training step against the floor of its cost: K attack passes and one training pass.

The floor is K x (forward + backward to the inputs) + 1 x (forward + full backward) of the same
model on the same batch, as it is, with nothing around it. Our attack goes through the folded model
(`components/attacks/folding.py`), so the step may lie below; what it wastes shows against the
floor whose attack passes are folded, too (`details`). Torch, numpy and `components` only, so this
runs on a bare GPU machine:

    python -m benchmarks attack_step                 small two-stream net, CPU
    python -m benchmarks attack_step -- --gpu        R(2+1)D-18 + HCN, 16x112x112, bf16
    python -m benchmarks attack_step -- --gpu --toy  the same code on a CPU, so that it cannot rot
"""

import argparse
import time
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._bench import Result, paired, ratio_of, spread
from components.attacks import Budget, ThreatModel, frozen
from components.attacks.folding import folded
from components.batch import Batch
from components.config.train import TrainAttackSection, TrainSection
from components.models import build_model
from components.training.layout import channels_last, channels_last_video
from components.training.memory import keep_freed_memory
from components.training.step import TrainTarget, train_step

CLASSES = 60


def run(args: list[str]) -> Result:
    """Both sides in turn on one model and batch."""
    options = _options(args)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the training workers do
    device = torch.device("cuda" if options.gpu and not options.toy else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("attack_step --gpu: torch sees no GPU on this machine")
    module, batch = _model(options).to(device), _clips(options).to(device)
    if options.gpu:
        module, batch = channels_last(module), channels_last_video(batch)
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    target = TrainTarget(module, module, optimizer)
    threat = ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))
    amp: Literal["fp32", "bf16"] = "bf16" if options.gpu else "fp32"
    train = TrainSection(attack=TrainAttackSection(steps=options.steps), amp=amp, aux_weight=0.0)
    sides = {
        "ours": lambda: train_step(target, batch, threat, train, seed=0),
        "floor": lambda: floor(module, batch, options.steps, amp),
        "floor, folded": lambda: floor(module, batch, options.steps, amp, fold=True),
    }
    clock = time.perf_counter if options.gpu else time.process_time
    times = paired(sides, repeats=options.repeats, warmup=options.warmup, clock=clock)
    figures = {name: spread(values) for name, values in times.items()}
    details: dict[str, Any] = {"batch": batch.size, "steps": options.steps, "model": _name(options)}
    details["ours over the folded floor"] = ratio_of(times, "ours", "floor, folded")
    details |= {
        f"{name} clips/s": batch.size / figure["median"] for name, figure in figures.items()
    }
    if options.gpu:
        side = 64 if options.toy else 8192
        details |= _share_of_peak(module, batch, options.steps, figures["ours"]["median"], side)
    return Result(
        name="attack_step",
        ratio=ratio_of(times, "ours", "floor"),
        goal=1.05,
        sense="<=",
        sides=figures,
        unit="seconds a step" if options.gpu else "CPU seconds a step",
        notes=f"PGD-{options.steps} training step over its floor, {_name(options)}, "
        f"batch {batch.size}, {device.type}",
        details=details,
    )


def floor(module: nn.Module, batch: Batch, steps: int, amp: str, fold: bool = False) -> None:
    """The passes that PGD training cannot do without, and nothing else."""
    kind = batch.rgb.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=amp == "bf16"):
        with frozen(module) as net, folded(net) if fold else nullcontext():
            rgb = batch.rgb.clone().requires_grad_(True)
            skeleton = batch.skeleton.clone().requires_grad_(True)
            for _ in range(steps):
                logits = net(rgb, skeleton, batch.present).logits
                torch.autograd.grad(_loss(logits, batch.label), [rgb, skeleton])
        loss = _loss(module(*batch[:3]).logits, batch.label)
    for parameter in module.parameters():
        parameter.grad = None
    loss.backward()


def count_flops(module: nn.Module, batch: Batch, steps: int) -> int:
    """Flops of the floor's matrix products and convolutions, counted by torch."""

    def attack_pass() -> None:
        leaves = [x.clone().requires_grad_(True) for x in batch[:2]]
        # torch's counter hooks on the inputs and refuses leaves there.
        logits = net(leaves[0] * 1.0, leaves[1] * 1.0, batch.present).logits
        torch.autograd.grad(_loss(logits, batch.label), leaves)

    with FlopCounterMode(display=False) as attack, frozen(module) as net:
        attack_pass()
    with FlopCounterMode(display=False) as training:
        floor(module, batch, 0, "fp32")
    return steps * attack.get_total_flops() + training.get_total_flops()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _loss(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), label)


def _options(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="attack_step")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--toy", action="store_true", help="tiny, and on the CPU")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=0, help="clips; 0 = 16 on CPU, 32 on GPU")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fusion", default="concat")
    options = parser.parse_args(args)
    options.batch = options.batch or (4 if options.toy else 32 if options.gpu else 16)
    return options


def _name(options: argparse.Namespace) -> str:
    kind = "R(2+1)D-18 + HCN, bf16" if options.gpu else "small nets"
    frames, size, width = _size(options)
    return f"{kind}, {frames}x{size}x{size}, width {width:g}, {options.fusion}"


def _size(options: argparse.Namespace) -> tuple[int, int, float]:
    """Frames, side of a frame, and the factor of the channels."""
    if options.toy:
        return 4, 32, 0.125
    return (16, 112, 1.0) if options.gpu else (8, 48, 1.0)


def _model(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    big = options.gpu
    frames, size, width = _size(options)
    return build_model(
        {
            "rgb": "r2plus1d_18" if big else "small_video",
            "skeleton": "hcn" if big else "small_skeleton",
            "fusion": options.fusion,
            "fusion_stages": (),
            "width": width,
            "dropout": 0.3,
            "rgb_frames": frames,
            "rgb_size": size,
            "skeleton_frames": 32,
            "rgb_weights": "",
            "amr": {"heads": 4, "width": 32, "temperature": 1.0},
            "num_classes": CLASSES,
        }
    )


def _clips(options: argparse.Namespace) -> Batch:
    frames, size, _ = _size(options)
    generator = torch.Generator().manual_seed(0)
    n = options.batch
    present = torch.ones((n, 32, 2), dtype=torch.bool)
    present[: n // 2, :, 1] = False
    skeleton = torch.randn((n, 3, 32, 25, 2), generator=generator)
    return Batch(
        torch.rand((n, 3, frames, size, size), generator=generator),
        skeleton * present[:, None, :, None, :],
        present,
        torch.randint(CLASSES, (n,), generator=generator),
        tuple(f"clip{i}" for i in range(n)),
    )


def _share_of_peak(
    module: nn.Module, batch: Batch, steps: int, seconds: float, n: int
) -> dict[str, float]:
    """Flops of the step over what a bf16 product of n x n matrices reaches here."""
    reached = count_flops(module, batch, steps) / seconds
    a = torch.randn((n, n), device=batch.rgb.device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    _wait_for(a.device)
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    _wait_for(a.device)
    peak = 20 * 2 * n**3 / (time.perf_counter() - start)
    return {
        "TFLOP/s reached": reached / 1e12,
        "TFLOP/s of a large matmul": peak / 1e12,
        "share of measured matrix peak": reached / peak,
    }
