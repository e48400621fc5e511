"""AMR, the Attention Modality Reweighter: how far each modality's prediction counts for this clip.

This project's own design; the paper (arXiv 2407.19981) published no equations. `docs/amr.md` has
ours. A plain softmax over two predictions learns to rely on one modality and so makes it the single
point of failure; the floor and the doubt here each bound how far one modality alone can carry, or
veto, a class.
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
TOKEN = 8  # length of a modality's token
TIME_PARTS = 2  # into which features are pooled unless `model.time_parts` is set


def amr(
    streams: Streams,
    *,
    weights: str = "attention",
    temperature: float = 1.0,
    floor: float = 0.4,
    doubt: float = 0.0,
    video_bias: float = 0.0,
    distil: float = 1.0,
    prototype_scale: float = 12.0,
) -> Fusion:
    """AMR from its settings, with features of two parts of time unless set otherwise.

    weights: "attention" weighs the two predictions clip by clip, "mean" averages their logits
    temperature, floor, doubt, video_bias: see `Reweighter`
    distil: factor of the loss `mutual`, which needs `model.aux_heads`
    prototype_scale: scale of `PrototypeHeads`; 0 = linear heads
    There is no dropout before the heads: they decide by the direction of a feature, which a dropped
    entry turns, and on held-out subjects that cost clean accuracy.
    """
    if weights not in ("attention", "mean"):
        raise UserError(f"model.amr.weights={weights!r}: choose attention or mean")
    if prototype_scale < 0:
        raise UserError(
            f"model.amr.prototype_scale={prototype_scale}: a scale of cosines is above 0, and 0 "
            "chooses linear heads"
        )
    merge: nn.Module = LateMerge()
    if weights == "attention":
        merge = Reweighter(
            streams.num_classes,
            temperature=temperature,
            floor=floor,
            doubt=doubt,
            video_bias=video_bias,
        )
    parts = streams.time_parts(TIME_PARTS)
    heads: Callable[[int, int, int], nn.Module] = LinearHeads
    if prototype_scale:
        heads = partial(PrototypeHeads, scale=prototype_scale, parts=parts)
    return Fusion(
        merge,
        streams.features(TIME_PARTS),
        penalties=[partial(mutual, factor=distil)] if distil else [],
        heads=heads,
        dropout=0.0,
        time_parts=parts,
    )


class Reweighter(nn.Module):
    """logits_k = sum_m w_m log((1 - doubt) p_mk + doubt / K), with p_m = softmax of head m.

    The weights come from `ModalityAttention` over one token a modality, made from `statistics` of
    the two predictions, none of which names a class.

    temperature, floor: see `floored_softmax`; each modality keeps a weight of at least `floor`
    doubt: assumed probability that a head is wrong; it bounds what one modality says against a
        class to log(doubt / K) from below. 0 = unbounded
    video_bias: in eval mode the video's weight grows by this, and the skeleton's shrinks. Training
        weighs both alike; in use more than 1/2 serves where the skeleton's attacker does more harm

    At the start all weights are 1/2: without doubt that is the mean of the log-probabilities.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        temperature: float = 1.0,
        floor: float = 0.4,
        doubt: float = 0.0,
        video_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if abs(video_bias) > floor:
            raise UserError(
                f"model.amr.video_bias={video_bias} with model.amr.floor={floor}: a weight could "
                "fall below 0; keep the bias within the floor"
            )
        self.num_classes, self.doubt, self.video_bias = num_classes, doubt, video_bias
        self.tokens = nn.ModuleList(nn.Linear(STATISTICS, TOKEN) for _ in range(2))
        self.context = nn.Linear(2 * TOKEN, TOKEN)
        self.attention = ModalityAttention(TOKEN, temperature=temperature, floor=floor)

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, K] of each -> logits [B, K], weights [B, 2]; the features are unused."""
        log_p = torch.stack([rgb_logits, skeleton_logits], -1).float().log_softmax(1)  # [B, K, 2]
        if self.doubt:
            log_p = (log_p.exp() * (1.0 - self.doubt) + self.doubt / self.num_classes).log()
        by_modality = statistics(log_p).unbind(1)
        tokens = [token(facts) for token, facts in zip(self.tokens, by_modality, strict=True)]
        context = torch.relu(self.context(torch.cat(tokens, 1)))
        weights = self.attention(context, tokens)
        if self.video_bias and not self.training:
            weights = weights + weights.new_tensor([self.video_bias, -self.video_bias])
        return (weights.unsqueeze(1) * log_p).sum(-1), weights


class ModalityAttention(nn.Module):
    """A query from the joint context attends to one token of each modality.

    score_m = q . t_m / sqrt(width) with q = W context + b; the weights are the `floored_softmax` of
    the scores. W and b start at 0, so every weight starts at 1/2, and learn because the context is
    not 0.
    """

    def __init__(self, width: int, *, temperature: float, floor: float) -> None:
        super().__init__()
        self.temperature, self.floor = temperature, floor
        self.query = nn.Linear(width, width)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, context: Tensor, tokens: list[Tensor]) -> Tensor:
        """Context [B, width] and a token [B, width] for each modality -> weights [B, 2]."""
        query = self.query(context)
        dots = torch.stack([(query * token).sum(-1) for token in tokens], -1)
        scores = dots.float() / math.sqrt(query.shape[-1])
        return floored_softmax(scores, self.temperature, self.floor)


def floored_softmax(scores: Tensor, temperature: float, floor: float) -> Tensor:
    """Scores [B, 2] -> weights floor + (1 - 2 floor) softmax(scores / temperature), [B, 2]."""
    return floor + (1.0 - 2.0 * floor) * torch.softmax(scores / temperature, -1)


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
