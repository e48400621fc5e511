"""Square Attack (Andriushchenko et al. 2020) for clips: random search that needs no gradient.

For video the squares become windows in space and time; for skeletons, subsets of joints over a
window of frames. It tells a robust model from one that only hides its gradients.
"""

import math

import torch
from torch import Tensor

from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, predict
from components.attacks.losses import margin_loss
from components.attacks.pgd import start_seeds
from components.attacks.region import Region, rescale
from components.attacks.threat import ThreatModel
from components.batch import Batch
from components.errors import UserError
from components.seeds import uniform

Inputs = dict[str, Tensor]
# Queries out of 10 000 at which the share of a clip that one proposal changes is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_CHECK = 10  # queries between two looks at which clips still stand; fixed, so costs stay per clip
_RECORD = 50  # queries between two entries of a clip's record, by which it is given up


def square(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    queries: int = 500,
    p_init: float = 0.8,
    early_stop: bool = True,
    give_up: bool = False,
) -> Batch:
    """The clips of highest margin after at most `queries` forward passes.

    give_up: leave a clip alone once its own record says that it will stand: what it gained over the
        later half of its queries, gained as fast in all that remain, does not fool the model.
        Random search slows down on its way, so such a clip would hardly have fallen.

    Each query changes one window of one modality (in turns, when both may be touched) to the edge
    of its budget and is kept when the margin grows. In L2 the window takes half of the energy and
    the rest is scaled to fit: a simpler move than the paper's, in the same spirit.
    """
    if queries < 1:
        raise UserError(f"queries must be at least 1, got {queries}")
    region = threat.region(batch)
    best = Best(region.clean, batch.label)
    standing = torch.arange(batch.size, device=batch.label.device)
    zone, now = region, best.select(standing)
    seeds = start_seeds(region, seed, "square")
    record: list[Tensor] = []  # best margins [N] of the clips in `standing`, each _RECORD queries
    with frozen(model) as net:
        for query in range(queries):
            if query == 0 or not zone.names:
                move = zone.project_(_stripes(zone, seeds))
            else:
                name = zone.names[query % len(zone.names)]
                share = _share(p_init, query / queries)
                changed = _window(zone, name, now.adv[name], seeds, share, query)
                move = {**now.adv, **zone.project_({name: changed})}
            logits = predict(net, zone.batch, move)
            now.see(move, logits, margin_loss(logits, zone.batch.label))
            left = torch.zeros_like(now.done)
            if early_stop and query % _CHECK == 0:
                left = now.done
            if give_up and query % _RECORD == _RECORD - 1:
                record.append(now.value.clone())
                left = left | _hopeless(record, queries)
            if bool(left.any()):
                best.merge(now, standing)
                open_ = (~left).nonzero().flatten()
                if open_.numel() == 0:
                    return region.finish(best.adv)
                zone, now, standing = zone.select(open_), now.select(open_), standing[open_]
                seeds = {m: s[open_] for m, s in seeds.items()}
                record = [values[open_] for values in record]
    best.merge(now, standing)
    return region.finish(best.adv)


def _hopeless(record: list[Tensor], queries: int) -> Tensor:
    """bool [N]: at the pace of the later half of its record the margin stays below 0 to the end."""
    now, half = record[-1], record[(len(record) - 1) // 2]
    if len(record) < 2:
        return torch.zeros_like(now, dtype=torch.bool)
    entries = len(record) - 1 - (len(record) - 1) // 2
    remaining = queries / _RECORD - len(record)
    return now + (now - half) / entries * remaining < 0


def _share(p_init: float, progress: float) -> float:
    """The share of a clip that one proposal changes, halved on the paper's schedule."""
    return p_init / 2 ** sum(progress * 10_000 > at for at in _HALVINGS)


def _stripes(region: Region, seeds: Inputs) -> Inputs:
    """The first query: video in columns, skeleton in joints, each at an edge of the budget."""
    adv = {}
    for name, clean in region.clean.items():
        channels, columns, rest = clean.shape[1], clean.shape[4], clean.shape[3]
        shape = (channels, 1, 1, columns) if name == "rgb" else (channels, 1, rest, columns)
        adv[name] = clean + _edge(region, name, _signs(seeds[name], shape, 0).expand_as(clean))
    return adv


def _window(
    region: Region, name: str, current: Tensor, seeds: Inputs, share: float, query: int
) -> Tensor:
    """`current` with one window set to a random edge of the budget."""
    clean = region.clean[name]
    inside, shape = (_cuboid if name == "rgb" else _limbs)(clean, seeds[name], share, query)
    sign = _signs(seeds[name], shape, 3 * query + 1)
    if region.budgets[name].norm == "Linf":
        return torch.where(inside, clean + sign * region.budgets[name].eps, current)
    patch = _edge(region, name, (sign * inside).expand_as(clean)) * math.sqrt(0.5)
    rest = torch.where(inside, torch.zeros_like(clean), current - clean)
    return clean + rescale(rest + patch, region.budgets[name].eps)


def _cuboid(clean: Tensor, seeds: Tensor, share: float, query: int) -> tuple[Tensor, tuple]:
    """A window of `share` of the clip: bool [B, 1, T, H, W], and the shape of its signs.

    Every other window spans all frames: a still pattern is what a video net pools up best.
    """
    frames, rows, columns = clean.shape[2:]
    deep = query // 2 % 2 == 0
    length = frames if deep else max(1, round(share ** (1 / 3) * frames))
    side = math.sqrt(share * frames / length)
    spans = (length, max(1, round(side * rows)), max(1, round(side * columns)))
    draw = uniform(seeds, (3,), stream=3 * query + 2)
    inside = torch.ones((), dtype=torch.bool, device=clean.device)
    for axis, (size, span) in enumerate(zip(clean.shape[2:], spans, strict=True)):
        inside = inside & _interval(draw[:, axis], size, min(span, size), axis + 2)
    return inside, (clean.shape[1], 1, 1, 1)


def _limbs(clean: Tensor, seeds: Tensor, share: float, query: int) -> tuple[Tensor, tuple]:
    """Some joints of one person over some frames: bool [B, 1, S, V, M], and the signs' shape."""
    frames, joints, persons = clean.shape[2:]
    draw = uniform(seeds, (2 + joints,), stream=3 * query + 2)
    span = max(1, round(math.sqrt(share) * frames))
    inside = _interval(draw[:, 0], frames, span, 2)
    count = max(1, round(math.sqrt(share) * joints))
    rank = draw[:, 2:].argsort(dim=1).argsort(dim=1)
    inside = inside & (rank < count)[:, None, None, :, None]
    who = (draw[:, 1] * persons).long()
    person = torch.arange(persons, device=clean.device)
    return inside & (who[:, None] == person)[:, None, None, None, :], (clean.shape[1], 1, joints, 1)


def _interval(draw: Tensor, size: int, span: int, axis: int) -> Tensor:
    """bool, True in `span` places of `axis` from a start that `draw` [B] in [0, 1) picks."""
    first = (draw * (size - span + 1)).long()[:, None]
    place = torch.arange(size, device=draw.device)
    shape = [draw.shape[0], 1, 1, 1, 1]
    shape[axis] = size
    return ((place >= first) & (place < first + span)).reshape(shape)


def _signs(seeds: Tensor, shape: tuple[int, ...], stream: int) -> Tensor:
    return (uniform(seeds, shape, stream=stream) < 0.5).float() * 2 - 1


def _edge(region: Region, name: str, delta: Tensor) -> Tensor:
    """A sign pattern scaled to the edge of the budget."""
    eps = region.budgets[name].eps
    if region.budgets[name].norm == "Linf":
        return delta * eps
    return rescale(delta.clone(), eps)
