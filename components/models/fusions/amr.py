"""AMR, the Attention Modality Reweighter: how far each modality's prediction counts for this clip.

This project's own design; the paper (arXiv 2407.19981) published no equations. `docs/amr.md` has
ours. The streams learn with both weights at 1/2. The weights are fitted afterwards, on attacked
clips of training subjects that the streams have not seen (`components.training.stacking`): on clips
that the streams have fitted already, attention goes to whichever of them overfits best.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import ModelOutput
from components.errors import UserError
from components.models.fusions.fusion import Fusion, Streams
from components.models.fusions.late import LateMerge
from components.models.heads import LinearHeads, PrototypeHeads

STATISTICS = 5  # values of `statistics` for each modality
EVIDENCE = 4.0  # brings statistics, within [0, 1] and mostly close together, to about unit size
TIME_PARTS = 2  # into which features are pooled unless `model.time_parts` is set
# Least weight of a modality: next to nothing, but a weight of exactly 0 has no gradient, and an
# attacker who sees no gradient of a stream only seems to be held off.
LEAST = 0.02


def amr(
    streams: Streams,
    *,
    weights: str = "attention",
    distil: float = 1.0,
    prototype_scale: float = 12.0,
) -> Fusion:
    """AMR from its settings, with features of two parts of time unless set otherwise.

    weights: "attention" weighs the two predictions clip by clip, "constant" fits one pair of
        weights for all clips, "mean" averages their logits
    distil: factor of the loss `mutual`, which needs `model.aux_heads`
    prototype_scale: scale of `PrototypeHeads`; 0 = linear heads
    There is no dropout before the heads: they decide by the direction of a feature, which a dropped
    entry turns, and on held-out subjects that cost clean accuracy.
    """
    if weights not in ("attention", "constant", "mean"):
        raise UserError(f"model.amr.weights={weights!r}: choose attention, constant or mean")
    if prototype_scale < 0:
        raise UserError(
            f"model.amr.prototype_scale={prototype_scale}: a scale of cosines is above 0, and 0 "
            "chooses linear heads"
        )
    parts = streams.time_parts(TIME_PARTS)
    heads: Callable[[int, int, int], nn.Module] = LinearHeads
    if prototype_scale:
        heads = partial(PrototypeHeads, scale=prototype_scale, parts=parts)
    return Fusion(
        LateMerge() if weights == "mean" else Reweighter(constant=weights == "constant"),
        streams.features(TIME_PARTS),
        penalties=[partial(mutual, factor=distil)] if distil else [],
        heads=heads,
        dropout=0.0,
        time_parts=parts,
    )


class Reweighter(nn.Module):
    """logits_k = sum_m w_m log p_mk, with p_m = softmax of head m and w = `ModalityAttention`.

    What the weights go by are `statistics` of the two predictions, none of which names a class,
    as 4 (e - 1/2). At the start both weights are 1/2: the mean of the log-probabilities.

    constant: fit the biases alone, so that all clips get the same weights
    """

    def __init__(self, constant: bool = False) -> None:
        super().__init__()
        self.width = 0 if constant else STATISTICS
        self.attention = ModalityAttention(self.width)

    def stacked(self) -> list[nn.Parameter]:
        """The parameters that are fitted on held-out clips, after the streams."""
        return [p for p in self.attention.parameters() if p.numel()]

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [B, K] of each -> logits [B, K], weights [B, 2]; the features are unused.

        Constant weights are no property of a clip, so they are not handed out.
        """
        log_p = torch.stack([rgb_logits, skeleton_logits], -1).float().log_softmax(1)  # [B, K, 2]
        evidence = EVIDENCE * (statistics(log_p)[..., : self.width] - 0.5)
        weights = self.attention(evidence)
        logits = (weights.unsqueeze(1) * log_p).sum(-1)
        return logits, weights if self.width else None


class ModalityAttention(nn.Module):
    """Each modality has a query that scores its own evidence: score_m = q_m . e_m + b_m.

    w = LEAST + (1 - 2 LEAST) softmax(scores). All scores start at 0, so every weight at 1/2. Two
    queries of `width` values and two biases are few enough to be fitted on some hundred clips.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(2, width))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, evidence: Tensor) -> Tensor:
        """Evidence [B, 2, width] by modality -> weights [B, 2]."""
        scores = (evidence * self.query).sum(-1) + self.bias
        return LEAST + (1.0 - 2.0 * LEAST) * torch.softmax(scores, -1)


def statistics(log_p: Tensor) -> Tensor:
    """What two predictions say without naming a class: log p [B, K, 2] -> [B, 2, 5].

    By modality: entropy / log K, largest probability, margin between the two largest, the
    probability it gives to the other's favourite, and the overlap of both (sum of p_rgb p_skel).
    """
    p = log_p.exp()
    entropy = -(p * log_p).sum(1) / math.log(p.shape[1])
    top = p.topk(2, dim=1)
    margin = top.values[:, 0] - top.values[:, 1]
    favourite = top.indices[:, :1].flip(-1)  # the other modality's, [B, 1, 2]
    agreement = p.gather(1, favourite).squeeze(1)
    overlap = p.prod(-1).sum(1, keepdim=True).expand_as(agreement)
    return torch.stack([entropy, top.values[:, 0], margin, agreement, overlap], -1)


def mutual(output: ModelOutput, factor: float = 1.0) -> Tensor:
    """factor * mean over modalities and clips of KL(fused prediction || that of the head); scalar.

    The joint prediction teaches the single ones (knowledge distillation, Hinton et al., arXiv
    1503.02531, from the fused to the single modality, on the same attacked clip); no gradient goes
    back into the teacher. Logits are [B, K]; 0 without heads.
    """
    if not output.aux:
        return output.logits.new_zeros((), dtype=torch.float32)
    teacher = output.logits.detach().float().log_softmax(1)
    terms = [
        F.kl_div(head.float().log_softmax(1), teacher, reduction="batchmean", log_target=True)
        for head in output.aux.values()
    ]
    return factor * torch.stack(terms).mean()
