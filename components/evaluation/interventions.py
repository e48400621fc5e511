"""Is the attention alive? What a model loses when its modality weights are taken from it.

Accuracy alone cannot tell weights that work from weights that are a constant. So they are
intervened on, under attack: frozen at their mean over clean clips (and the model attacked anew),
given to other clips, and exchanged between attacks on one modality and on the other. Weights that
go by something lose accuracy each time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from components.attacks import ThreatModel, frozen
from components.batch import Batch, logits_of
from components.errors import UserError
from components.evaluation.cascade import ChunkResult, run_cascade
from components.evaluation.metrics import Z95, paired_difference
from components.evaluation.streams import CASES, video_weight
from components.evaluation.suite import Entry, entries_of
from components.models.fusions.amr import ModalityAttention

OTHER = {"rgb": "skeleton", "skeleton": "rgb"}


def intervene(
    model: nn.Module,
    batches: Sequence[Batch],
    threat: ThreatModel,
    suite: str | Sequence[Entry] = "full",
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy lost by each intervention, in each case, paired by clip.

    `{"frozen": {"clean": {"value", "low", "high", "n", "p"}, "rgb": ...}, "shuffled": ...,
    "swapped": {"rgb": ..., "skeleton": ...}, "weight": {case: [mean, spread]}, "contrast": ...}`;
    a positive value is accuracy that the weights are worth. `contrast` is the mean, over clips, of
    the video's weight under attack on the skeleton less that under attack on the video.
    model: with `ModalityAttention`; UserError without. Attacks are those of `suite`.
    """
    if not any(isinstance(module, ModalityAttention) for module in model.modules()):
        raise UserError("this model has no attention over modalities whose weights could be frozen")
    entries = entries_of(suite, frozenset({"weights", "aux"}))
    before = [_attack(model, batch, entries, threat, seed) for batch in batches]
    mean = torch.cat([_weights(model, result.clips) for result in before])[:, 0].mean()
    with replaced(model, lambda own: torch.stack([mean, 1 - mean]).to(own).expand_as(own)):
        after = [_attack(model, batch, entries, threat, seed) for batch in batches]
    right, shuffled, swapped, weight = (
        dict[str, list[Tensor]]((case, []) for case in CASES) for _ in range(4)
    )
    for result in before:
        inputs = {"clean": result.clips} | {
            cell: result.clips._replace(rgb=worst.rgb, skeleton=worst.skeleton)
            for cell, worst in result.worst.items()
        }
        own = {case: _weights(model, clips) for case, clips in inputs.items()}
        for case, clips in inputs.items():
            weight[case].append(own[case][:, 0])
            right[case].append(_right(model, clips))
            turned = own[case].roll(max(1, clips.size // 2), 0)
            shuffled[case].append(_right(model, clips, turned))
            if case in OTHER and OTHER[case] in own:
                swapped[case].append(_right(model, clips, own[OTHER[case]]))
    figures: dict[str, Any] = {
        "frozen": {c: _lost(_standing(before, c), _standing(after, c)) for c in _cases(before)},
        "shuffled": {c: _lost(_cat(right[c]), _cat(shuffled[c])) for c in _cases(before)},
        "swapped": {c: _lost(_cat(right[c]), _cat(swapped[c])) for c in CASES if swapped[c]},
        "weight": {
            c: [float(torch.cat(w).mean()), float(torch.cat(w).std())]
            for c, w in weight.items()
            if w
        },
    }
    if weight["rgb"] and weight["skeleton"]:
        contrast = torch.cat(weight["skeleton"]) - torch.cat(weight["rgb"])
        error = Z95 * float(contrast.std()) / len(contrast) ** 0.5
        value = float(contrast.mean())
        figures["contrast"] = {"value": value, "low": value - error, "high": value + error}
    return figures


@contextmanager
def replaced(model: nn.Module, change: Any) -> Iterator[None]:
    """Inside, the attention's weights [B, 2] are `change(weights)`."""
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, own: change(own))
        for module in model.modules()
        if isinstance(module, ModalityAttention)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _attack(
    model: nn.Module, batch: Batch, entries: Sequence[Entry], threat: ThreatModel, seed: int
) -> ChunkResult:
    return run_cascade(model, batch, entries, threat, seed=seed, clips_per_pass=0, keep=True)


def _weights(model: nn.Module, clips: Batch) -> Tensor:
    with frozen(model) as net, torch.no_grad():
        video = video_weight(net(clips.rgb, clips.skeleton, clips.present))
    return torch.stack([video, 1 - video], 1)


def _right(model: nn.Module, clips: Batch, weights: Tensor | None = None) -> Tensor:
    with frozen(model) as net, torch.no_grad():
        with replaced(model, lambda own: own if weights is None else weights):
            logits = logits_of(net(clips.rgb, clips.skeleton, clips.present))
    return logits.argmax(1) == clips.label


def _cases(results: Sequence[ChunkResult]) -> list[str]:
    return ["clean", *results[0].standing]


def _standing(results: Sequence[ChunkResult], case: str) -> Tensor:
    if case == "clean":
        return _cat([result.clean.scores.correct for result in results])
    return _cat([result.standing[case] for result in results])


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)).cpu()


def _lost(with_weights: Tensor, without: Tensor) -> dict[str, Any]:
    return paired_difference(with_weights.numpy(), without.numpy())
