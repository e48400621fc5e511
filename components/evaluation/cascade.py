"""Attacks in order of the suite, each on the clips it still has to break; worst case per clip.

Two rules save passes and change no number. Within a cell, an attack that is not `individual` only
sees the clips that every attack before it left standing. And whatever breaks a clip through one
modality lies inside the joint budget too, so the cell "both" starts from the clips that stand in
"rgb" and in "skeleton". Clips that are wrong on clean input are never attacked.

What a clip gets must not depend on which others are still standing. So every forward pass has the
same shape: `micro` clips, the last ones filled up with repeats, one- and two-person clips apart
(a model may skip the second person when nobody has one). docs/evaluation.md has the measurement.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.attacks import CELLS, ThreatModel, frozen
from components.batch import Batch
from components.evaluation.cost import count_passes
from components.evaluation.loop import Scores, cells_of, perturb, score
from components.evaluation.sizes import perturbation_sizes
from components.evaluation.suite import Entry

Context = Mapping[str, Mapping[str, Any]]


@dataclass
class Run:
    """One pass of `change` over N clips, in the order of the given index.

    sizes: float [N] by name; forward, backward: passes per clip [N], an equal share of its batch
    found: the perturbed clips, when they were asked for; cost: passes (padding included), seconds
    """

    scores: Scores
    sizes: dict[str, Tensor]
    forward: Tensor
    backward: Tensor
    found: Batch | None
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
    """All verdicts on a chunk of clips; `standing` bool [B] and `worst` by cell."""

    clips: Batch
    clean: Run
    outcomes: list[Outcome]
    standing: dict[str, Tensor]
    worst: dict[str, Worst]


def run_cascade(
    model: nn.Module,
    clips: Batch,
    entries: Sequence[Entry],
    threat: ThreatModel,
    *,
    seed: int,
    cells: Sequence[str] = CELLS,
    micro: int | None = 16,
    exhaustive: bool = False,
    keep: bool = False,
    context: Context | None = None,
) -> ChunkResult:
    """Run `entries` on `clips` (on the model's device) in every cell the threat model allows.

    micro: clips per forward pass; None = all that stand at once, for speed without the promise.
    exhaustive: every attack sees every clip (what the cascade is measured against).
    keep: also return, per cell, the worst input found for each clip.
    context: further arguments by `Entry.needs`, e.g. {"twin": {"source": model}}.
    """
    with frozen(model):
        every = torch.arange(clips.size, device=clips.label.device)
        clean = _run(model, clips, every, micro, lambda batch: batch, keep=False)
        result = ChunkResult(clips, clean, [], {}, {})
        for cell in cells_of(threat, cells):
            standing = clean.scores.correct.clone()
            if cell == "both":
                for single in result.standing.values():
                    standing &= single
            worst = Worst(clips.rgb.clone(), clips.skeleton.clone(), clean.scores.margin.clone())
            for entry in entries:
                chosen = clean.scores.correct if entry.individual else standing
                index = every if exhaustive else chosen.nonzero().flatten()
                if len(index) == 0:
                    continue
                attack = _attack(model, entry, threat.cell(cell), seed, context or {})
                run = _run(model, clips, index, micro, attack, keep)
                broke = standing[index] & ~run.scores.correct
                standing[index] &= run.scores.correct
                result.outcomes.append(Outcome(cell, entry, index, broke, run))
                if run.found is not None:
                    worst.offer(index, run.found.rgb, run.found.skeleton, run.scores.margin)
            if cell == "both":
                for single_worst in result.worst.values():
                    worst.offer(every, single_worst.rgb, single_worst.skeleton, single_worst.margin)
            result.standing[cell] = standing
            if keep:
                result.worst[cell] = worst
    return result


def _attack(
    model: nn.Module, entry: Entry, threat: ThreatModel, seed: int, context: Context
) -> Callable[[Batch], Batch]:
    parameters = {**entry.parameters, **context.get(entry.needs, {})}
    return lambda batch: perturb(
        model, batch, threat, entry.attack, seed=seed, parameters=parameters
    )


def _run(
    model: nn.Module,
    clips: Batch,
    index: Tensor,
    micro: int | None,
    change: Callable[[Batch], Batch],
    keep: bool,
) -> Run:
    """Score `change(batch)` over the clips at `index`, and what that cost."""
    parts: list[Tensor] = []
    scores: list[Scores] = []
    sizes: list[dict[str, Tensor]] = []
    found: list[Batch] = []
    forward: list[float] = []
    backward: list[float] = []
    cost = {"forward": 0.0, "backward": 0.0, "seconds": 0.0}
    for part in _parts(clips, index, micro):
        n = len(part)
        places = micro or n
        batch = clips.select(index[part.repeat(-(-places // n))[:places]])
        began = time.perf_counter()
        with count_passes(model) as passes:
            changed = change(batch)
            verdict = score(model, changed)
        cost["seconds"] += time.perf_counter() - began
        cost["forward"] += passes.forward
        cost["backward"] += passes.backward
        parts.append(part)
        scores.append(_head(verdict, n))
        sizes.append({k: v[:n] for k, v in perturbation_sizes(batch, changed).items()})
        forward += [passes.forward / places] * n
        backward += [passes.backward / places] * n
        if keep:
            found.append(changed.select(torch.arange(n, device=part.device)))
    order = torch.cat(parts).argsort()  # back from the order of the parts to that of the index

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors))[order]

    joined = Scores(
        join([s.prediction for s in scores]),
        join([s.margin for s in scores]),
        join([s.correct for s in scores]),
        {place: join([s.weights[place] for s in scores]) for place in scores[0].weights},
    )
    kept = None
    if keep:
        rgb, skeleton = join([b.rgb for b in found]), join([b.skeleton for b in found])
        kept = clips.select(index)._replace(rgb=rgb, skeleton=skeleton)
    return Run(
        joined,
        {name: join([s[name] for s in sizes]) for name in sizes[0]},
        join([torch.tensor(forward, device=index.device)]),
        join([torch.tensor(backward, device=index.device)]),
        kept,
        cost,
    )


def _parts(clips: Batch, index: Tensor, micro: int | None) -> Iterator[Tensor]:
    """Positions in `index`, at most `micro` at a time, clips with equally many persons together."""
    every = torch.arange(len(index), device=index.device)
    if micro is None:
        yield every
        return
    used = clips.present[index].any(1)  # [N, M]
    persons = (used * torch.arange(1, used.shape[1] + 1, device=used.device)).amax(1)
    for count in persons.unique().tolist():
        yield from every[persons == count].split(micro)


def _head(scores: Scores, n: int) -> Scores:
    prediction, margin, correct, weights = scores
    return Scores(prediction[:n], margin[:n], correct[:n], {k: w[:n] for k, w in weights.items()})
