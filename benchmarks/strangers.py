"""Adversaries that no suite contains, on the clips that stand after one.

    python -m benchmarks strangers -- --artifacts artifacts/utd_mhad [--clips 12] [--runs amr-s0]

Five strangers meet every clip and cell that stands: momentum ascent towards every wrong class (120
steps, 3 restarts; Dong et al. 2018), APGD of torchattacks, APGD of the adversarial-robustness-
toolbox (ART), natural evolution strategies, which see logits alone (Ilyas et al. 2018), and a
search that sees labels alone (`hard_label`, 5,000 queries). The peers' attacks know one input in
[0, 1]; `Flat` shows them the pair as one vector, whose values run from the lower to the upper end
of their budgets. `ratio` is the worst share of clips that fell, over models and cells.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchattacks
from art.attacks.evasion import AutoProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from benchmarks._bench import Result
from benchmarks.eval_cascade import THREAT, trained, trained_options
from components.attacks import ATTACKS, CELLS, ThreatModel, frozen
from components.attacks.folding import folded
from components.attacks.gradient import predict, value_and_grad
from components.attacks.losses import fooled, margin_loss, target_margin
from components.attacks.region import Region
from components.batch import Batch, logits_of
from components.evaluation.cascade import run_cascade
from components.evaluation.evaluate import model_outputs
from components.evaluation.suite import entries_of
from components.seeds import normal

EXPLICIT = True  # hours for many clips
GOAL = 0.01
STEPS, RESTARTS, DECAY = 120, 3, 1.0
QUERIES, SAMPLES, SIGMA = 5000, 50, 0.1
Stranger = Callable[[nn.Module, Batch, ThreatModel], Batch]


class Flat(nn.Module):
    """One clip's pair as a vector [1, n] of values in [0, 1], the ends of the budget."""

    def __init__(self, model: nn.Module, region: Region) -> None:
        super().__init__()
        self.model, self.region = model, region
        self.limits = {m: region.limits(m)[:2] for m in region.names}
        self.sizes = [region.clean[m].numel() for m in region.names]

    def start(self) -> Tensor:
        """The clean clip as such a vector; 1/2 where nothing may change."""
        parts = []
        for name, (low, high) in self.limits.items():
            span = high - low
            share = (self.region.clean[name] - low) / torch.where(span > 0, span, 1.0)
            parts.append(torch.where(span > 0, share, 0.5).flatten(1))
        return torch.cat(parts, 1)

    def inputs(self, vector: Tensor) -> dict[str, Tensor]:
        """The modalities of vectors [B, n]."""
        found = {}
        for part, (name, (low, high)) in zip(
            vector.split(self.sizes, 1), self.limits.items(), strict=True
        ):
            found[name] = low + part.reshape(-1, *low.shape[1:]) * (high - low)
        return found

    def forward(self, vector: Tensor) -> Tensor:
        """Logits [B, K] of vectors [B, n] or, as the peers want images, [B, 1, 1, n]."""
        adv, clean = self.inputs(vector.flatten(1)), self.region.batch
        size = vector.shape[0]
        rgb, skeleton = (adv.get(m, getattr(clean, m)) for m in ("rgb", "skeleton"))
        present = clean.present.expand(size, *clean.present.shape[1:])
        rgb, skeleton = (x.expand(size, *x.shape[1:]) for x in (rgb, skeleton))
        return logits_of(self.model(rgb, skeleton, present)).float()


def momentum(model: nn.Module, clips: Batch, threat: ThreatModel) -> Batch:
    """Momentum ascent on z_t - z_y towards each wrong class t, from random starts."""
    region = threat.region(clips)
    standing = torch.arange(clips.size)
    found = region.start()
    classes = predict(model, clips, {}).shape[1]
    for turn in range(RESTARTS):
        for shift in range(1, classes):
            if standing.numel() == 0:
                return region.finish(found)
            zone = region.select(standing)
            target = (zone.batch.label + shift) % classes
            seeds = {
                m: torch.stack([torch.full_like(standing, 7 * turn + shift), standing], 1)
                for m in zone.names
            }
            x = zone.random_start(seeds)
            speed = {m: torch.zeros_like(v) for m, v in x.items()}
            hit = torch.zeros_like(standing, dtype=torch.bool)
            for step in range(STEPS):
                logits, _, grads = value_and_grad(
                    model, zone.batch, x, partial(target_margin, target=target)
                )
                new = fooled(logits, zone.batch.label) & ~hit
                for name, value in x.items():
                    found[name][standing[new]] = value[new]
                hit |= new
                for name, grad in grads.items():
                    size = grad.abs().flatten(1).mean(1).clamp(min=1e-30)
                    speed[name].mul_(DECAY).add_(grad / size.reshape(-1, 1, 1, 1, 1))
                length = 2.0 / STEPS if step > STEPS // 2 else 8.0 / STEPS
                alpha = {m: length * b.eps for m, b in zone.budgets.items()}
                zone.step_(x, {m: v.clone() for m, v in speed.items()}, alpha)
            standing = standing[~hit]
    return region.finish(found)


def _one_by_one(attack: Callable[[Flat, Batch], Tensor]) -> Stranger:
    def run(model: nn.Module, clips: Batch, threat: ThreatModel) -> Batch:
        found = threat.region(clips).start()
        for i in range(clips.size):
            clip = clips.select(torch.tensor([i]))
            flat = Flat(model, threat.region(clip)).eval()
            for name, value in flat.inputs(attack(flat, clip).flatten(1)).items():
                found[name][i] = value[0]
        return threat.region(clips).finish(found)

    return run


def _torchattacks(flat: Flat, clip: Batch) -> Tensor:
    # The ball of radius 1 around any point of the unit cube holds all of it: the cube decides.
    made = torchattacks.APGD(flat, eps=1.0, steps=100, n_restarts=2, loss="dlr", seed=0)
    return made(flat.start()[:, None, None], clip.label)


def _art(flat: Flat, clip: Batch) -> Tensor:
    images = flat.start()[:, None, None]
    classes = flat(images).shape[1]
    classifier = PyTorchClassifier(
        flat, nn.CrossEntropyLoss(), images.shape[1:], classes, clip_values=(0.0, 1.0),
        device_type="cpu",
    )  # fmt: skip
    made = AutoProjectedGradientDescent(
        classifier, eps=1.0, eps_step=1.0, max_iter=100, nb_random_init=2, verbose=False,
        loss_type="difference_logits_ratio",
    )  # fmt: skip
    np.random.seed(0)
    return torch.from_numpy(made.generate(images.detach().numpy(), clip.label.numpy()))


def _evolution(flat: Flat, clip: Batch) -> Tensor:
    """NES with antithetic samples: ascent on an estimate of the margin's gradient."""
    x = flat.start()
    with torch.no_grad():
        for step in range(QUERIES // SAMPLES):
            if bool(fooled(flat(x), clip.label)[0]):
                break
            seeds = torch.tensor([[step, 11]]).repeat(SAMPLES // 2, 1)
            seeds[:, 1] += torch.arange(SAMPLES // 2)
            noise = normal(seeds, x.shape[1:])
            around = torch.cat([x + SIGMA * noise, x - SIGMA * noise]).clamp(0, 1)
            value = margin_loss(flat(around), clip.label.expand(SAMPLES))
            weight = value[: SAMPLES // 2] - value[SAMPLES // 2 :]
            x = (x + 0.05 * (weight[:, None] * noise).sum(0, keepdim=True).sign()).clamp(0, 1)
    return x


def _labels_alone(model: nn.Module, clips: Batch, threat: ThreatModel) -> Batch:
    return ATTACKS["hard_label"](model, clips, threat, seed=1, queries=QUERIES)


STRANGERS: dict[str, Stranger] = {
    "momentum to every class": momentum,
    "torchattacks APGD": _one_by_one(_torchattacks),
    "ART APGD": _one_by_one(_art),
    "evolution on logits": _one_by_one(_evolution),
    "labels alone": _labels_alone,
}


def run(args: list[str]) -> Result:
    """The suite, then every stranger on every clip that stands."""
    parser = trained_options("strangers", clips=12)
    parser.add_argument("--strangers", default="", help="comma list of names; empty = all")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    chosen = [name for name in options.strangers.split(",") if name] or list(STRANGERS)
    sides: dict[str, Any] = {}
    # So few clips that one of them is more than the goal cannot show that none falls.
    worst = 1.0 / options.clips if options.clips * GOAL < 1 else 0.0
    for name, model, clips in trained(options.artifacts, options.clips, options.runs):
        entries = entries_of(options.suite, model_outputs(model, clips)[0])
        left = run_cascade(model, clips, entries, THREAT, seed=0).standing
        for cell in CELLS:
            fell = fallen(model, clips.select(left[cell].nonzero().flatten()), cell, chosen)
            stood = int(left[cell].sum())
            worst = max(worst, len(set().union(*fell.values())) / clips.size)
            counts = {stranger: len(ids) for stranger, ids in fell.items()}
            sides[f"{name} {cell}"] = {"stood": stood, **counts}
            print(f"{name} {cell}: {stood} of {clips.size} stood after {options.suite}; fell to",
                  counts, flush=True)  # fmt: skip
    return Result(
        "strangers", worst, GOAL, "<=", sides, unit="share of the clips that fell, worst cell",
        notes=f"after {options.suite}, {options.clips} test clips a model",
    )  # fmt: skip


def fallen(model: nn.Module, clips: Batch, cell: str, strangers: list[str]) -> dict[str, set[str]]:
    """Ids of the clips that fall to each stranger, all within budget."""
    threat = THREAT.cell(cell)
    found: dict[str, set[str]] = {name: set() for name in strangers}
    if clips.size == 0:
        return found
    with frozen(model) as net, folded(net):
        for name in strangers:
            adversarial = STRANGERS[name](net, clips, threat)
            rgb, skeleton = threat.project(clips, adversarial.rgb, adversarial.skeleton)
            hit = fooled(predict(net, clips, {"rgb": rgb, "skeleton": skeleton}), clips.label)
            found[name] = {clips.clip_id[i] for i in hit.nonzero().flatten().tolist()}
    return found
