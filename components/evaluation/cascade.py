"""Attacks in order of the suite, each on the clips it still has to break; worst case per clip.

Two rules save passes and change no number. Within a cell, an attack that is not `individual` only
sees the clips that every attack before it left standing. And whatever breaks a clip through one
modality lies inside the joint budget too, so the cell "both" starts from the clips that stand in
"rgb" and in "skeleton", and an individual attack from those that it did not break there itself.
Clips that are wrong on clean input are never attacked.

What a clip gets must not depend on which others are still standing: see `fixed.py`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from components.attacks import CELLS, MODALITIES, Counter, ThreatModel, frozen
from components.batch import Batch
from components.errors import UserError
from components.evaluation.cost import count_passes
from components.evaluation.faster import faster, foldable
from components.evaluation.fixed import FixedShape
from components.evaluation.scores import Scores, cells_of, perturb, score
from components.evaluation.sizes import perturbation_sizes
from components.evaluation.streams import exchanged
from components.evaluation.suite import Entry

# Clips per forward pass by device. What a record depends on is no setting.
MICRO = {"cpu": 16, "cuda": 64}


@dataclass
class Run:
    """The model's verdicts on N clips after `change`, in the order of the given index.

    sizes: float [N] by name; forward, backward: passes of each clip, int64 [N]
    found: the perturbed clips; cost: all passes through the model (fill-ups included) and seconds
    """

    scores: Scores
    sizes: dict[str, Tensor]
    forward: Tensor
    backward: Tensor
    found: Batch
    cost: dict[str, float]


@dataclass
class Outcome:
    """One attack in one cell. index: int64 [N] positions in the chunk of the attacked clips;
    broke: bool [N], first attack of its cell to fool that clip."""

    cell: str
    entry: Entry
    index: Tensor
    broke: Tensor
    run: Run


@dataclass
class Worst:
    """Per clip the input with the smallest margin seen so far, and that margin [B]."""

    rgb: Tensor
    skeleton: Tensor
    margin: Tensor

    def offer(self, index: Tensor, rgb: Tensor, skeleton: Tensor, margin: Tensor) -> None:
        """Keep, among the clips at `index`, those inputs that are worse for the model."""
        better = ~(margin >= self.margin[index])  # a margin that is not a number counts as worse
        chosen = index[better]
        self.rgb[chosen], self.skeleton[chosen] = rgb[better], skeleton[better]
        self.margin[chosen] = margin[better]


@dataclass
class ChunkResult:
    """All verdicts on a chunk of clips; `standing` bool [B] and `worst` by cell; `exchanged` by
    modality, where it was taken from clips of other classes."""

    clips: Batch
    clean: Run
    outcomes: list[Outcome]
    standing: dict[str, Tensor]
    worst: dict[str, Worst]
    exchanged: dict[str, Scores] = field(default_factory=dict)


def run_cascade(
    model: nn.Module,
    clips: Batch,
    entries: Sequence[Entry],
    threat: ThreatModel,
    *,
    seed: int,
    cells: Sequence[str] = CELLS,
    clips_per_pass: int | None = None,
    exhaustive: bool = False,
    keep: bool = False,
    twin: nn.Module | None = None,
    exchange: bool = False,
) -> ChunkResult:
    """Run `entries` on `clips` (on the model's device) in every cell the threat model allows.

    clips_per_pass: always exactly so many; None = by device; 0 = whatever comes, for speed without
    the promise that a clip's verdict does not depend on its neighbours.
    exhaustive: every attack sees every clip (what the cascade is measured against).
    keep: also return, per cell, the worst input found for each clip.
    twin: the source of the transfer attack, for suites that have one.
    exchange: also judge the clips with one modality taken from another class (`streams.py`).
    """
    fixed = clips_per_pass_on(clips.label.device) if clips_per_pass is None else clips_per_pass
    net = Counter(FixedShape(model, fixed) if fixed else model)
    source = FixedShape(twin, fixed) if twin is not None and fixed else twin
    hooked = [model] if twin is None else [model, twin]
    with frozen(net):
        every = torch.arange(clips.size, device=clips.label.device)
        clean = _run(hooked, net, clips, lambda batch: batch)
        folds = [m for m in hooked if entries and foldable(m, clips)]
        result = ChunkResult(clips, clean, [], {}, {})
        if exchange:
            result.exchanged = {m: score(net, exchanged(clips, m)) for m in MODALITIES}
        fooled = {entry.name: torch.zeros_like(clean.scores.correct) for entry in entries}
        for cell in cells_of(threat, cells):
            standing = clean.scores.correct.clone()
            if cell == "both":
                for single in result.standing.values():
                    standing &= single
            worst = Worst(clips.rgb.clone(), clips.skeleton.clone(), clean.scores.margin.clone())
            for entry in entries:
                alone = clean.scores.correct
                if cell == "both":
                    alone = alone & ~fooled[entry.name]
                chosen = alone if entry.individual else standing
                index = every if exhaustive else chosen.nonzero().flatten()
                if len(index) == 0:
                    continue
                attack = _attack(net, entry, threat.cell(cell), seed, source)
                run = _run(hooked, net, clips.select(index), attack, folds)
                broke = standing[index] & ~run.scores.correct
                standing[index] &= run.scores.correct
                fooled[entry.name][index] |= ~run.scores.correct
                worst.offer(index, run.found.rgb, run.found.skeleton, run.scores.margin)
                # Only what stands in the records stays in memory.
                run.found = clips.select(index[:0])
                result.outcomes.append(Outcome(cell, entry, index, broke, run))
            for single_worst in result.worst.values() if cell == "both" else ():
                worst.offer(every, single_worst.rgb, single_worst.skeleton, single_worst.margin)
            result.standing[cell] = standing
            if keep:
                result.worst[cell] = worst
    return result


def clips_per_pass_on(device: torch.device) -> int:
    """Clips per forward pass on this device."""
    return MICRO.get(device.type, MICRO["cuda"])


def _attack(
    net: nn.Module, entry: Entry, threat: ThreatModel, seed: int, source: nn.Module | None
) -> Callable[[Batch], Batch]:
    parameters = dict(entry.parameters)
    if entry.needs == "twin":
        if source is None:
            raise UserError(f"{entry.name} needs a twin: a model without AMR to transfer from")
        parameters["source"] = source
    return lambda batch: perturb(net, batch, threat, entry.attack, seed=seed, parameters=parameters)


def _run(
    hooked: Sequence[nn.Module],
    net: Counter,
    clips: Batch,
    change: Callable[[Batch], Batch],
    folds: Sequence[nn.Module] = (),
) -> Run:
    net.reset()
    began = time.perf_counter()
    with count_passes(*hooked) as passes:
        with faster(folds):
            found = change(clips)
        scores = score(net, found)
        if scores.correct.is_cuda:
            torch.cuda.synchronize()
    cost = {
        "forward": float(passes.forward),
        "backward": float(passes.backward),
        "seconds": time.perf_counter() - began,
    }
    # The final look at what came back is one more forward pass of each clip.
    forward = torch.tensor([net.forwards[clip] + 1 for clip in clips.clip_id])
    backward = torch.tensor([net.backwards[clip] for clip in clips.clip_id])
    sizes = perturbation_sizes(clips, found)
    return Run(scores, sizes, forward, backward, found, cost)
