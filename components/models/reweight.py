"""AMR over the two modalities' predictions: who is believed how far, for this clip.

This project's own design (`docs/amr.md`). The plain softmax over two logits learns to trust one
modality and so makes it the single point of failure; the floor, the doubt and the class-wise
weights here each bound how far one modality alone can carry, or veto, a class.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.amr import ModalityAttention, token

STATISTICS = 5


class LogitReweighter(nn.Module):
    """logits_k = sum_m w_mk log((1 - doubt) p_mk + doubt / K), with p_m = softmax of head m.

    evidence: what a modality's token is made of: "logits" (`statistics` of the two predictions,
        none of which names a class), "features", or "both"
    per_class: one learned number `lean` adds lean * log p_mk to the scores, class by class;
        below 0 a class is believed as far as its less convinced modality, above 0 as its more
        convinced one
    temperature, floor: see `floored_softmax`; each modality keeps a weight of at least `floor`
    doubt: share of probability that each head is held to be wrong; bounds one modality's say on a
        class to log(doubt / K) from below. 0 = unbounded
    detach: in training, cut the evidence off the graph (gradient past the weights); never in eval
        mode, where attacks run
    stream_drop: in training, probability that a clip is decided by one modality drawn at random
    share: in eval mode the video's weights are moved by share - 1/2. Training trusts both alike;
        in use more than 1/2 serves where the skeleton's budget hurts more than the video's

    At the start all weights are 1/2: without doubt that is the mean of the log-probabilities.
    """

    def __init__(
        self,
        rgb_features: int,
        skeleton_features: int,
        num_classes: int,
        *,
        evidence: str = "logits",
        per_class: bool = False,
        width: int = 8,
        temperature: float = 1.0,
        floor: float = 0.1,
        doubt: float = 0.0,
        detach: bool = False,
        stream_drop: float = 0.0,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if evidence not in ("logits", "features", "both"):
            raise ValueError(f"model.amr.evidence={evidence!r}: choose logits, features or both")
        if abs(share - 0.5) > floor:
            raise ValueError(
                f"model.amr.share={share} with model.amr.logit_floor={floor}: a weight could fall "
                "below 0; keep the share within the floor of 1/2"
            )
        self.num_classes, self.doubt, self.detach = num_classes, doubt, detach
        self.stream_drop = stream_drop
        self.shift = share - 0.5
        self.of_logits = self.of_features = None
        if evidence != "features":
            self.of_logits = nn.ModuleList(nn.Linear(STATISTICS, width) for _ in range(2))
        if evidence != "logits":
            sizes = (rgb_features, skeleton_features)
            self.of_features = nn.ModuleList(token(size, width) for size in sizes)
        self.context = nn.Linear(2 * width, width)
        self.attention = ModalityAttention(width, heads=1, temperature=temperature, floor=floor)
        self.lean = nn.Parameter(torch.zeros(())) if per_class else None

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features [B, C_m], logits [B, K] each -> logits [B, K], weights [B, 2] or [B, K, 2]."""
        log_p = torch.stack([rgb_logits, skeleton_logits], -1).float().log_softmax(1)  # [B, K, 2]
        if self.doubt:
            log_p = (log_p.exp() * (1.0 - self.doubt) + self.doubt / self.num_classes).log()
        evidence = [rgb, skeleton, log_p]
        if self.detach and self.training:
            evidence = [e.detach() for e in evidence]
        tokens = self._tokens(*evidence)
        context = torch.relu(self.context(torch.cat(tokens, 1)))
        prior = 0.0 if self.lean is None else self.lean * evidence[2]
        weights = self.attention(context, tokens, prior)  # [B, 1 or K, 2]
        if self.shift and not self.training:
            weights = weights + weights.new_tensor([self.shift, -self.shift])
        if self.training and self.stream_drop:
            weights = self._one_stream(weights)
        return (weights * log_p).sum(-1), weights.squeeze(1) if self.lean is None else weights

    def _tokens(self, rgb: Tensor, skeleton: Tensor, log_p: Tensor) -> list[Tensor]:
        tokens: list[Tensor] = [torch.zeros((), device=log_p.device)] * 2
        if self.of_features is not None:
            pairs = zip(self.of_features, (rgb, skeleton), strict=True)
            tokens = [part(feature) for part, feature in pairs]
        if self.of_logits is not None:
            facts = zip(tokens, self.of_logits, statistics(log_p).unbind(1), strict=True)
            tokens = [sum_ + part(fact) for sum_, part, fact in facts]
        return tokens

    def _one_stream(self, weights: Tensor) -> Tensor:
        chosen = torch.randint(2, (weights.shape[0], 1, 1), device=weights.device)
        alone = torch.cat([1 - chosen, chosen], -1).to(weights.dtype).expand_as(weights)
        dropped = torch.rand(chosen.shape, device=weights.device) < self.stream_drop
        return torch.where(dropped, alone, weights)


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
    trust = p.gather(1, favourite).squeeze(1)
    overlap = p.prod(-1).sum(1, keepdim=True).expand_as(trust)
    return torch.stack([entropy, top.values[:, 0], margin, trust, overlap], -1)


def imbalance(output: ModelOutput, factor: float = 1.0) -> Tensor:
    """factor * (log 2 - entropy of the batch's mean weights), mean over places; 0 = equal use."""
    terms = []
    for weight in output.weights.values():
        mean = weight.flatten(0, -2).mean(0).clamp(min=1e-6)
        terms.append(math.log(2.0) + (mean * mean.log()).sum())
    return factor * torch.stack(terms).mean()


def mutual(output: ModelOutput, factor: float = 1.0) -> Tensor:
    """factor * mean over modalities and clips of KL(fused prediction || that of the head).

    The joint prediction teaches the single ones (knowledge distillation, Hinton et al., arXiv
    1503.02531, from the fused to the single modality, on the same attacked clip); no gradient goes
    back into the teacher. 0 without heads.
    """
    if not output.aux:
        return output.logits.new_zeros((), dtype=torch.float32)
    teacher = output.logits.detach().float().log_softmax(1)
    terms = [
        F.kl_div(head.float().log_softmax(1), teacher, reduction="batchmean", log_target=True)
        for head in output.aux.values()
    ]
    return factor * torch.stack(terms).mean()
