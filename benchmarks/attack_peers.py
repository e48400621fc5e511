"""FGSM, PGD and APGD against torchattacks and the adversarial-robustness-toolbox (ART).

    python -m benchmarks attack_peers -- [--data FOLDER] [--clips 128] [--epochs 6]

One video classifier, the same clips, eps and passes for all. Without --data the clips are made up
(a moving blob, 8 directions); with it they are the videos of an NTU-layout folder, odd subjects
training and even ones attacked. The peers take 4-D images, so they see frames and channels in one
axis. `ratio` is the worst excess of our robust accuracy over a peer's, which must not be above
zero. Where both sides start at random, an excess within two standard errors of the paired
difference is chance and counts as zero (the raw one is in the details). `ratio` is 1 when FGSM or
PGD without random start, the same algorithm on all three sides, do not give equal perturbations.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    FastGradientMethod,
    ProjectedGradientDescent,
)
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from benchmarks._bench import Result
from benchmarks._peer_task import Net, batches, from_folder, made_up, train
from components.attacks import ATTACKS, Budget, SingleStream, ThreatModel, fgsm, pgd
from components.batch import Batch

EXPLICIT = True
GOAL = 0.0
PGD_STEPS, APGD_STEPS = 20, 40
REL_ALPHA = 2.5 / PGD_STEPS
SAME = 0.999  # share of pixels within 1e-6; the sign of a gradient near zero may round either way
Run = Callable[[Batch], Tensor]


class Flat(nn.Module):
    """The network behind a 4-D input [B, 3 T, H, W], which is all that the peers take."""

    def __init__(self, net: Net, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = net, shape

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]."""
        return self.net(images.reshape(-1, *self.shape))


def sides(net: Net, shape: tuple[int, ...], eps: float) -> dict[str, dict[str, Run]]:
    """The attacks by algorithm and side: batch -> adversarial video [B, 3, T, H, W]."""
    model, threat = SingleStream(net, "rgb"), ThreatModel(Budget("Linf", eps))
    flat, alpha = Flat(net, shape).eval(), REL_ALPHA * eps
    classifier = PyTorchClassifier(
        flat,
        nn.CrossEntropyLoss(),
        (shape[0] * shape[1], *shape[2:]),
        net.head.out_features,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )

    def ours(attack: Callable[..., Batch], **options: Any) -> Run:
        return lambda b: attack(model, b, threat, seed=0, **options).rgb

    def torchattack(attack: Any, **options: Any) -> Run:
        made = attack(flat, eps=eps, **options)
        return lambda b: made(b.rgb.flatten(1, 2), b.label).reshape(b.rgb.shape)

    def art(attack: Any, **options: Any) -> Run:
        made = attack(classifier, eps=eps, batch_size=32, **options)

        def run(b: Batch) -> Tensor:
            np.random.seed(0)
            images, label = b.rgb.flatten(1, 2).numpy(), b.label.numpy()
            return torch.from_numpy(made.generate(images, label)).reshape(b.rgb.shape)

        return run

    plain = {"steps": PGD_STEPS, "rel_alpha": REL_ALPHA}
    quiet = {"verbose": False}
    descent = {"eps_step": alpha, "max_iter": PGD_STEPS, **quiet}
    automatic = {"eps_step": 2 * eps, "max_iter": APGD_STEPS, "nb_random_init": 1, **quiet}
    return {
        "FGSM": {
            "ours": ours(fgsm),
            "torchattacks": torchattack(torchattacks.FGSM),
            "ART": art(FastGradientMethod, eps_step=eps),
        },
        "PGD, no random start": {
            "ours": ours(pgd, random_start=False, keep="last", **plain),
            "torchattacks": torchattack(
                torchattacks.PGD, alpha=alpha, steps=PGD_STEPS, random_start=False
            ),
            "ART": art(ProjectedGradientDescent, num_random_init=0, **descent),
        },
        "PGD": {
            "ours": ours(ATTACKS["pgd"], **plain),
            "torchattacks": torchattack(torchattacks.PGD, alpha=alpha, steps=PGD_STEPS),
            "ART": art(ProjectedGradientDescent, num_random_init=1, **descent),
        },
        "APGD-CE": {
            "ours": ours(ATTACKS["apgd_ce"], steps=APGD_STEPS),
            "torchattacks": torchattack(torchattacks.APGD, steps=APGD_STEPS, loss="ce"),
            "ART": art(AutoProjectedGradientDescent, loss_type="cross_entropy", **automatic),
        },
        "APGD-DLR": {
            "ours": ours(ATTACKS["apgd_dlr"], steps=APGD_STEPS),
            "torchattacks": torchattack(torchattacks.APGD, steps=APGD_STEPS, loss="dlr"),
            "ART": art(
                AutoProjectedGradientDescent, loss_type="difference_logits_ratio", **automatic
            ),
        },
    }


def attack_all(net: Net, run: Run, clips: list[Batch]) -> tuple[Tensor, Tensor, float]:
    """(adversarial clips, which of them stand, seconds of the attack)."""
    torch.manual_seed(0)
    found, seconds = [], 0.0
    for batch in clips:
        start = time.perf_counter()
        found.append(run(batch))
        seconds += time.perf_counter() - start
    stand = [
        (net(b.rgb).argmax(1) == b.label) & (net(x).argmax(1) == b.label)
        for b, x in zip(clips, found, strict=True)
    ]
    return torch.cat(found), torch.cat(stand), seconds


def run(args: list[str]) -> Result:
    """Train, attack from three sides at several eps, compare."""
    parser = argparse.ArgumentParser(prog="attack_peers")
    parser.add_argument("--data", default="", help="folder in NTU layout; default: made-up clips")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--eps", default="2,4,8", help="in 255ths")
    options = parser.parse_args(args)
    if options.data:
        clips, label, odd = from_folder(Path(options.data))
        seen, unseen = (clips[odd], label[odd]), (clips[~odd], label[~odd])
    else:
        seen, unseen = made_up(512, seed=1), made_up(options.clips, seed=2)
    net = train(*seen, epochs=options.epochs, eps=4 / 255)
    # Evenly over the clips, which a folder lists subject by subject.
    count = min(options.clips, len(unseen[1]))
    spread = torch.linspace(0, len(unseen[1]) - 1, count).round().long()
    tested = list(batches(unseen[0][spread], unseen[1][spread]))
    clean = torch.cat([net(b.rgb).argmax(1) == b.label for b in tested])
    print(f"clean accuracy {clean.float().mean():.3f} of {len(clean)} clips")
    video = torch.cat([b.rgb for b in tested])

    shown: dict[str, dict[str, float]] = {}
    equal: dict[str, float] = {}
    worst = raw = -1.0
    for eps in (float(word) / 255 for word in options.eps.split(",")):
        for algorithm, by_side in sides(net, tuple(video.shape[1:]), eps).items():
            found = {side: attack_all(net, run, tested) for side, run in by_side.items()}
            ours, own_stand, _ = found["ours"]
            for side, (adversarial, stand, seconds) in found.items():
                title = f"{algorithm} {eps * 255:.0f}/255"
                line = shown.setdefault(title, {})
                line[f"{side} acc"], line[f"{side} s"] = stand.float().mean().item(), seconds
                size = (adversarial - video).abs().max().item()
                if size > eps + 1e-6:
                    print(f"{title}: {side} left the budget by {size - eps:.2g}")
                if side == "ours":
                    continue
                same_start = algorithm in ("FGSM", "PGD, no random start")
                excess = (own_stand.float().mean() - stand.float().mean()).item()
                chance = 0.0 if same_start else 2 * (own_stand ^ stand).sum().item() ** 0.5
                raw = max(raw, excess)
                worst = max(
                    worst, excess if excess <= 0 else max(0.0, excess - chance / len(stand))
                )
                if same_start:
                    near = ((adversarial - ours).abs() <= 1e-6).float().mean().item()
                    equal[f"{title} {side}"] = near
            print(title, {k: round(v, 4) for k, v in shown[title].items()}, flush=True)
    same = min(equal.values()) >= SAME
    data = "NTU-layout folder, even subjects" if options.data else "made-up clips"
    return Result(
        name="attack_peers",
        ratio=worst if same else 1.0,
        goal=GOAL,
        sense="<=",
        sides=shown,
        unit="robust accuracy, ours minus a peer's, worst",
        notes=f"{len(clean)} clips ({data}), clean accuracy {clean.float().mean():.3f}",
        details={
            "equal_share": equal,
            "worst_raw_excess": raw,
            "torch_threads": torch.get_num_threads(),
        },
    )
