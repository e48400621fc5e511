"""Signs of gradient masking: models that look robust because the attack cannot find its way.

Every check ends as a flag: pass, warn, fail or too-few with its figures. Most run on a small fixed
subset of rightly classified clips; two read the records of the whole suite. docs/flags.md says for
each what it means and what to do. After Athalye et al. 2018, Carlini et al. 2019 and the flags of
AutoAttack.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.attacks import Budget, ThreatModel, frozen
from components.attacks.gradient import value_and_grad
from components.attacks.losses import margin, margin_loss
from components.batch import Batch, logits_of
from components.evaluation.cascade import run_cascade
from components.evaluation.fixed import FixedShape
from components.evaluation.metrics import wilson
from components.evaluation.scores import cells_of, score
from components.evaluation.subset import SUBSET
from components.evaluation.suite import Entry
from components.seeds import clip_seeds, uniform

Flag = dict[str, Any]


def flag(check: str, status: str, message: str, **figures: Any) -> Flag:
    """One finished check. status: "pass", "warn", "fail" or "too-few".

    A figure that is no number is None.
    """
    figures = {k: v if math.isfinite(v) else None for k, v in figures.items()}
    page = f"docs/flags.md#{check.replace('_', '-')}"
    return {
        "check": check, "status": status, "message": message, "figures": figures, "page": page,
    }  # fmt: skip


def graded(value: float, warn: float, fail: float) -> str:
    """The status of a figure that should be small: above `warn`, above `fail`, no number at all."""
    if not math.isfinite(value):
        return "fail"
    return "fail" if value > fail else "warn" if value > warn else "pass"


def flag_if_enough(check: str, status: str, note: str, right: int, **figures: Any) -> Flag:
    """A flag of a check on `right` rightly classified clips: of too few, none passes."""
    if status == "pass" and right < SUBSET:
        status = "too-few"
        note = f"{right} rightly classified clips cannot tell; {SUBSET} are needed"
    return flag(check, status, "" if status == "pass" else note, **figures, clips=right)


def counted(
    check: str,
    counts: Mapping[str, int],
    n: int,
    note: str,
    *,
    warn: float,
    fail: float,
    right: int | None = None,
) -> Flag:
    """A check that counts bad clips, of `n` for each name; `right` (None: all) can be attacked.

    Its status goes by the low end of the 95 % interval of the worst share, so that one clip of
    sixteen decides nothing.
    """
    worst = max((wilson(k, n)[0] for k in counts.values()), default=0.0)
    status = graded(worst, warn, fail)
    figures = {key: x for name, k in counts.items() for key, x in _share(name, k, n).items()}
    return flag_if_enough(check, status, note, n if right is None else right, **figures)


def _share(name: str, k: int, n: int) -> dict[str, float]:
    low, high = wilson(k, n)
    return {name: k / n if n else math.nan, f"{name}_low": low, f"{name}_high": high}


def check_model(model: nn.Module, clips: Batch, threat: ThreatModel, *, seed: int) -> list[Flag]:
    """The checks that ask the model itself.

    clips: on the model's device, SUBSET of them (`components.evaluation.subset`). What is attacked
        are those that the model classifies rightly.
    """
    net = FixedShape(model, SUBSET)
    with frozen(net):
        flags = [_random_output(net, clips), _softmax_output(net, clips)]
        if not threat.budgets:
            return flags
        right = clips.select(score(net, clips).correct)
        if right.size == 0:
            names = ("zero_gradients", "slopes", "more_steps", "grows_with_eps", "unbounded")
            return [*flags, *(flag_if_enough(name, "pass", "", 0) for name in names)]
        flags += [_zero_gradients(net, right, threat), _slopes(net, right, threat, seed)]
    return [
        *flags,
        _more_steps(model, right, threat, seed),
        _grows_with_eps(model, right, threat, seed),
        _unbounded(model, right, threat, seed),
    ]


def _logits(net: nn.Module, clips: Batch) -> Tensor:
    with torch.no_grad():
        return logits_of(net(clips.rgb, clips.skeleton, clips.present)).float()


def _random_output(net: nn.Module, clips: Batch) -> Flag:
    first = _logits(net, clips)
    again = [_logits(net, clips) for _ in range(2)]
    spread = max(float((first - other).abs().max()) for other in again)
    relative = spread / max(float(first.std()), 1e-6)
    status = graded(relative, 1e-5, 1e-3)
    note = "the same clips give different outputs; attack the mean (attack `eot`)"
    return flag("random_output", status, "" if status == "pass" else note, spread=relative)


def _softmax_output(net: nn.Module, clips: Batch) -> Flag:
    logits = _logits(net, clips)
    looks = bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all())
    note = "outputs are probabilities, not logits: cross-entropy of them has flat gradients"
    return flag(
        "softmax_output", "fail" if looks else "pass", note if looks else "",
        smallest=float(logits.min()), mean_sum=float(logits.sum(1).mean()),
    )  # fmt: skip


def _lead_and_gradients(
    net: nn.Module, clips: Batch, names: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Right logit minus best other [B], minus the attacks' margin; its gradient by modality."""
    inputs = {name: getattr(clips, name) for name in names}
    _, value, grads = value_and_grad(net, clips, inputs, margin)
    return -value, {name: -grad for name, grad in grads.items()}


def _zero_gradients(net: nn.Module, clips: Batch, threat: ThreatModel) -> Flag:
    """Share of clips without any gradient to an input that does change the output."""
    _, grads = _lead_and_gradients(net, clips, tuple(threat.budgets))
    before = _logits(net, clips)
    counts = {}
    for name, grad in grads.items():
        zero = grad.flatten(1).abs().amax(1) == 0
        # Read, although it has no gradient? A net that never reads a modality hides nothing.
        flipped = _with(clips, name, _coarse_change(clips, name))
        read = (_logits(net, flipped) - before).abs().amax(1) > 0
        counts[name] = int((zero & read).sum())
    note = "an input that the output depends on has no gradient; attack without gradients"
    return counted("zero_gradients", counts, clips.size, note, warn=0.02, fail=0.05)


def _with(clips: Batch, name: str, x: Tensor) -> Batch:
    return clips._replace(rgb=x) if name == "rgb" else clips._replace(skeleton=x)


def _coarse_change(clips: Batch, name: str) -> Tensor:
    if name == "rgb":
        return 1 - clips.rgb
    return clips.skeleton * torch.tensor([-1.0, 1.0, 1.0]).to(clips.skeleton)[:, None, None, None]


def _slopes(net: nn.Module, clips: Batch, threat: ThreatModel, seed: int) -> Flag:
    """Do gradients foretell what small steps do? Correlation with finite differences."""
    names = tuple(threat.budgets)
    lead, grads = _lead_and_gradients(net, clips, names)
    foretold: dict[str, list[Tensor]] = {m: [] for m in names}
    seen: dict[str, list[Tensor]] = {m: [] for m in names}
    for draw in range(4):
        for name in names:
            x = getattr(clips, name)
            seeds = clip_seeds(seed, clips.clip_id, f"slopes/{name}/{draw}", x.device)
            step = (uniform(seeds, x.shape[1:]) < 0.5).float() * 2 - 1
            # Along the gradient's own signs where the draw agrees: half of them, so that the
            # change is well above rounding; where a gradient is zero the draw alone decides.
            step = torch.where(step * grads[name] < 0, torch.zeros_like(step), step)
            if name == "skeleton":
                step = step * clips.present[:, None, :, None, :]
            size = 0.02 * _linf(threat.budgets[name], x)
            moved = _with(clips, name, x + size * step)
            foretold[name].append(size * (grads[name] * step).flatten(1).sum(1))
            seen[name].append(-margin_loss(_logits(net, moved), clips.label) - lead)
    figures: dict[str, float] = {}
    worst = 1.0
    for m in names:
        value, low, high = _agreement(torch.stack(foretold[m]), torch.stack(seen[m]))
        figures |= {m: value, f"{m}_low": low, f"{m}_high": high}
        worst = min(worst, high)
    status = graded(1 - worst, 0.1, 0.5)
    note = "gradients do not foretell what a small step does to the output"
    return flag_if_enough("slopes", status, note, clips.size, **figures)


def _agreement(foretold: Tensor, seen: Tensor) -> tuple[float, float, float]:
    """How much of the change seen [draws, B] the gradient explains: 1 all, near 0 unrelated.

    With its 95 % interval, a bootstrap over clips.
    """
    parts = (foretold - seen, seen, foretold)
    sums = np.stack([x.double().square().sum(0).cpu().numpy() for x in parts])  # [3, B]
    n = sums.shape[1]
    drawn = np.random.default_rng(0).multinomial(n, [1 / n] * n, size=1000)  # [1000, B]
    error, *sizes = np.concatenate([sums.sum(1)[:, None], sums @ drawn.T], axis=1)
    size = np.maximum(*sizes)
    # Where nothing changed and no change was foretold, all is explained.
    explained = np.where(size == 0, 1.0, 1 - error / np.maximum(size, 1e-60)).clip(min=0.0)
    low, high = np.quantile(explained[1:], [0.025, 0.975])
    return float(explained[0]), float(low), float(high)


def _linf(budget: Budget, x: Tensor) -> float:
    """The size of one entry's change: eps, or what it is when an L2 budget is spread evenly."""
    return budget.eps if budget.norm == "Linf" else budget.eps / float(x[0].numel()) ** 0.5


def _standing(
    model: nn.Module, clips: Batch, threat: ThreatModel, seed: int, *entries: Entry
) -> list[int]:
    """How many clips are right after each entry, in the largest cell."""
    cell = cells_of(threat)[-1]
    result = run_cascade(model, clips, entries, threat.cell(cell), seed=seed, cells=(cell,))
    broken = {o.entry.name: int(o.broke.sum()) for o in result.outcomes}
    left = int(result.clean.scores.correct.sum())
    counts = []
    for entry in entries:
        left -= broken.get(entry.name, 0)
        counts.append(left)
    return counts


def _pgd(name: str, steps: int, **parameters: Any) -> Entry:
    return Entry(name, "pgd", {"steps": steps, "early_stop": True, "name": name, **parameters})


def _more_steps(model: nn.Module, clips: Batch, threat: ThreatModel, seed: int) -> Flag:
    few, many = _standing(
        model, clips, threat, seed, _pgd("few", 20), _pgd("more", 40), _pgd("again", 20)
    )[::2]
    note = "twice the steps and a restart break many more clips: PGD-20 has not converged"
    n = clips.size
    found = counted("more_steps", {"broken_besides": few - many}, n, note, warn=0.02, fail=0.1)
    found["figures"] |= {"pgd20": few / n, "pgd40_and_restart": many / n}
    return found


def _grows_with_eps(model: nn.Module, clips: Batch, threat: ThreatModel, seed: int) -> Flag:
    factors = (0.5, 1.0, 2.0, 4.0)
    left = [
        _standing(model, clips, threat.scaled(rgb=f, skeleton=f), seed, _pgd("pgd10", 10))[0]
        for f in factors
    ]
    n = clips.size
    rise = max(0, *(b - a for a, b in zip(left, left[1:], strict=False)))
    grows = any(budget.eps > 0 for budget in threat.budgets.values())
    flat = grows and wilson(left[0], n)[0] > 0.1 and left[-1] >= left[0]
    status = "fail" if flat else graded(wilson(rise, n)[0], 0.02, 0.1)
    note = "a larger budget does not lower the accuracy"
    figures = {f"eps_x{f:g}": k / n for f, k in zip(factors, left, strict=True)}
    return flag_if_enough("grows_with_eps", status, note, n, **_share("rise", rise, n), **figures)


def _unbounded(model: nn.Module, clips: Batch, threat: ThreatModel, seed: int) -> Flag:
    """With the whole of [0, 1] and a metre to move, nothing should be left."""
    wide = {}
    for name, budget in threat.budgets.items():
        x = getattr(clips, name)
        whole = 1.0 if budget.norm == "Linf" else float(x[0].numel()) ** 0.5
        wide[name] = replace(budget, eps=whole, frames=None)
    free = ThreatModel(rgb=wide.get("rgb"), skeleton=wide.get("skeleton"))
    (left,) = _standing(
        model, clips, free, seed, _pgd("unbounded", 30, loss="margin", rel_alpha=0.1)
    )
    note = "clips stand although the adversary may change everything"
    return counted("unbounded", {"robust_acc": left}, clips.size, note, warn=0.02, fail=0.1)
