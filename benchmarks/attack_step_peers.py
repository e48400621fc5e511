"""Our PGD training step against the same step with the PGD of other libraries, video alone.

Peers attack one input, so both sides train one video net. Same eps, step length, steps and random
start; the loss that each attack reaches stands in `details`: at equal strength it is the same.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._bench import Result, paired, ratio_of, spread
from components.attacks import Budget, ThreatModel
from components.batch import Batch
from components.config.train import TrainAttackSection, TrainSection
from components.models.backbones import VIDEO_BACKBONES
from components.models.normalize import VideoNormalize
from components.training.memory import keep_freed_memory
from components.training.methods import METHODS, InnerProblem
from components.training.step import TrainTarget, train_step

EPS, CLASSES = 8 / 255, 27


class VideoNet(nn.Module):
    """The small video backbone with a linear head; pixels in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normalize, self.net = VideoNormalize(), VIDEO_BACKBONES["small_video"]()
        self.head = nn.Linear(self.net.features, CLASSES)

    def forward(self, rgb: Tensor, skeleton: Tensor | None = None, present: Tensor | None = None):
        """rgb [B, 3, T, H, W] in [0, 1] -> logits [B, K]; the other stream is ignored."""
        x = self.net.begin(self.normalize(rgb))
        for stage in self.net.stages:
            x = stage(x)
        return self.head(self.net.pool(x))


def run(args: list[str]) -> Result:
    """Each side runs a whole training step; the ratio is the fastest peer's time over ours."""
    parser = argparse.ArgumentParser(prog="attack_step_peers")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--toy", action="store_true", help="--gpu's code, tiny and on the CPU")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the training workers do
    device = torch.device("cuda" if options.gpu and not options.toy else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("attack_step_peers --gpu: torch sees no GPU on this machine")
    frames, size = (4, 16) if options.toy else (16, 112) if options.gpu else (8, 48)
    module = VideoNet().to(device)
    batch = _batch(options.batch, frames, size).to(device)
    alpha = 2.5 / options.steps * EPS
    train = TrainSection(attack=TrainAttackSection(steps=options.steps), aux_weight=0.0)
    threat = ThreatModel(rgb=Budget("Linf", EPS))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
    target = TrainTarget(module, module, optimizer)
    attacks: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: METHODS["pgd_at"].craft(InnerProblem(module, batch, threat, train, 0)).rgb,
        "torchattacks": _torchattacks(module, batch, alpha, options.steps),
        "art": _art(module, batch, alpha, options.steps, device),
    }

    def peer(attack: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            adv = attack()
            module.train()
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(module(adv), batch.label).backward()
            optimizer.step()

        return step

    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: train_step(target, batch, threat, train, seed=0)
    }
    sides |= {name: peer(attacks[name]) for name in ("torchattacks", "art")}
    reached = {name: _reached(module, attack(), batch.label) for name, attack in attacks.items()}
    clock = time.perf_counter if options.gpu else time.process_time
    times = paired(sides, repeats=options.repeats, warmup=1, clock=clock)
    ratios = {name: ratio_of(times, name, "ours") for name in ("torchattacks", "art")}
    return Result(
        name="attack_step_peers",
        ratio=min(ratios.values()),
        goal=1.0,
        sense=">=",
        sides={name: spread(values) for name, values in times.items()},
        unit="seconds a step" if options.gpu else "CPU seconds a step",
        notes=f"PGD-{options.steps} training step of a video net, batch {options.batch}, "
        f"{frames}x{size}x{size}, {device.type}: fastest peer's time over ours",
        details={"peer over ours": ratios, "adversarial loss reached": reached},
    )


def _reached(module: nn.Module, adv: Tensor, label: Tensor) -> float:
    module.eval()
    with torch.no_grad():
        return float(F.cross_entropy(module(adv), label))


def _torchattacks(
    module: nn.Module, batch: Batch, alpha: float, steps: int
) -> Callable[[], Tensor]:
    import torchattacks

    attack = torchattacks.PGD(module, eps=EPS, alpha=alpha, steps=steps, random_start=True)
    return lambda: attack(batch.rgb, batch.label)


def _art(
    module: nn.Module, batch: Batch, alpha: float, steps: int, device: torch.device
) -> Callable[[], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            model=module,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(batch.rgb.shape[1:]),
            nb_classes=CLASSES,
            clip_values=(0.0, 1.0),
            device_type="gpu" if device.type == "cuda" else "cpu",
        )
        attack = ProjectedGradientDescentPyTorch(
            classifier,
            eps=EPS,
            eps_step=alpha,
            max_iter=steps,
            num_random_init=1,
            batch_size=batch.size,
            verbose=False,
        )
    clean, label = batch.rgb.cpu().numpy(), F.one_hot(batch.label, CLASSES).cpu().numpy()
    return lambda: torch.from_numpy(attack.generate(clean, label)).to(device)


def _batch(clips: int, frames: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand((clips, 3, frames, size, size), generator=generator),
        torch.zeros((clips, 3, 8, 25, 2)),
        torch.zeros((clips, 8, 2), dtype=torch.bool),
        torch.randint(CLASSES, (clips,), generator=generator),
        tuple(f"clip{i}" for i in range(clips)),
    )
