"""What each stream can do alone, how far the decision rests on it, and what the weights do.

A two-stream model can look well while one of its streams is dead: the other one answers alone. And
a fusion with weights can look clever while they are a constant. Both show in sums over clips, which
the workers of a training run can add up.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from components.attacks import CELLS, MODALITIES, ThreatModel, frozen
from components.batch import Batch, ModelOutput, logits_of
from components.evaluation.metrics import Z95
from components.evaluation.scores import cells_of, device_of, perturb

CASES = ("clean", *CELLS)
# The names of all sums, the same for every model, so that workers can add theirs up.
NAMES = (
    "clips",
    "with_heads",
    "with_weights",
    *(f"{case}/{what}" for case in CASES for what in ("fused", *MODALITIES, "weight", "square")),
    *(f"standing/{cell}" for cell in CELLS),
    *(f"without/{name}" for name in MODALITIES),
    "contrast",
    "contrast_square",
)


def stream_counts(
    model: nn.Module, batches: Iterable[Batch], threat: ThreatModel, *, steps: int, seed: int
) -> dict[str, float]:
    """Sums over `batches` (`NAMES`): on clean clips, and in every cell under `steps` on the margin.

    `<case>/fused`, `<case>/rgb`, `<case>/skeleton`: clips that the prediction and each head are
    right on, a case being clean or a cell; `standing/<cell>`: clips right on the clean input and
    under attack ("both": also in the other cells); `without/<modality>`: clips still right when
    that modality comes from a clip of another class; `<case>/weight`, `<case>/square`: the video's
    weight and its square; `contrast`: that weight under attack on the skeleton less that under
    attack on the video; `with_heads`, `with_weights`: clips for which the model reports them.
    """
    total = dict.fromkeys(NAMES, 0.0)
    device = device_of(model)
    for batch in batches:
        for name, value in _sums(model, batch.to(device), threat, steps, seed).items():
            total[name] += float(value)
    return total


def _sums(
    model: nn.Module, batch: Batch, threat: ThreatModel, steps: int, seed: int
) -> dict[str, Tensor | float]:
    cells = cells_of(threat)
    cases = {"clean": batch}
    for cell in cells:
        short = {"steps": steps, "n_targets": 0}
        cases[cell] = perturb(
            model, batch, threat.cell(cell), "margin_pgd", seed=seed, parameters=short
        )
    found: dict[str, Tensor | float] = {"clips": batch.size}
    right: dict[str, Tensor] = {}
    weight: dict[str, Tensor] = {}
    with frozen(model) as net, torch.no_grad():
        for case, clips in cases.items():
            output = net(clips.rgb, clips.skeleton, clips.present)
            right[case] = _right(logits_of(output), batch.label)
            found[f"{case}/fused"] = right[case].sum()
            if isinstance(output, ModelOutput) and output.aux:
                found["with_heads"] = batch.size
                for name, logits in output.aux.items():
                    found[f"{case}/{name}"] = _right(logits, batch.label).sum()
            if isinstance(output, ModelOutput) and output.weights:
                found["with_weights"] = batch.size
                weight[case] = video_weight(output)
        for name in MODALITIES:
            other = exchanged(batch, name)
            logits = logits_of(net(other.rgb, other.skeleton, other.present))
            found[f"without/{name}"] = _right(logits, batch.label).sum()
    standing = right["clean"].clone()
    for cell in cells:
        alone = right["clean"] & right[cell]
        standing &= alone
        found[f"standing/{cell}"] = (standing if cell == "both" else alone).sum()
    for case, video in weight.items():
        found[f"{case}/weight"], found[f"{case}/square"] = video.sum(), video.square().sum()
    if {"rgb", "skeleton"} <= weight.keys():
        contrast = weight["skeleton"] - weight["rgb"]
        found["contrast"], found["contrast_square"] = contrast.sum(), contrast.square().sum()
    return found


def _right(logits: Tensor, label: Tensor) -> Tensor:
    return (logits.argmax(1) == label) & logits.isfinite().all(1)


def video_weight(output: ModelOutput) -> Tensor:
    """The video's weight, averaged over the fusion's stages and groups, float [B]."""
    stages = [w[..., 0].float().reshape(len(w), -1).mean(1) for w in output.weights.values()]
    return torch.stack(stages).mean(0)


def exchanged(batch: Batch, name: str) -> Batch:
    """The clips, one modality taken from clips of other classes where the batch has such.

    Clips are sorted by class and moved on by the size of the largest class.
    """
    order = batch.label.argsort(stable=True)
    source = torch.empty_like(order)
    source[order] = order.roll(-int(batch.label.bincount().max()))
    if name == "rgb":
        return batch._replace(rgb=batch.rgb[source])
    return batch._replace(skeleton=batch.skeleton[source], present=batch.present[source])


def health(counts: Mapping[str, float], cells: Iterable[str] = CELLS) -> dict[str, float]:
    """The sums as flat figures for a row of training's history: shares, means, spreads.

    `<modality>_acc_<case>`: accuracy of that head alone; `<modality>_reliance`: points of clean
    accuracy that go when that modality comes from another class; `weight_<case>` and
    `weight_std_<case>`: mean and spread over clips of the video's weight; `weight_contrast` with
    `weight_contrast_error`, the half width of its 95 % interval. What the model does not have, is
    left out.
    """
    n = counts["clips"]
    cases = ("clean", *cells)
    figures = {
        f"{m}_reliance": (counts["clean/fused"] - counts[f"without/{m}"]) / n for m in MODALITIES
    }
    if counts["with_heads"]:
        figures |= {
            f"{m}_acc_{case}": counts[f"{case}/{m}"] / n for m in MODALITIES for case in cases
        }
    if counts["with_weights"]:
        for case in cases:
            mean, std = _moments(n, counts[f"{case}/weight"], counts[f"{case}/square"])
            figures[f"weight_{case}"], figures[f"weight_std_{case}"] = mean, std
        mean, std = _moments(n, counts["contrast"], counts["contrast_square"])
        figures["weight_contrast"], figures["weight_contrast_error"] = mean, Z95 * std / n**0.5
    return figures


def _moments(n: float, total: float, squares: float) -> tuple[float, float]:
    mean = total / n
    return mean, max(squares / n - mean * mean, 0.0) ** 0.5
