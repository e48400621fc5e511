"""AMR between two feature maps: attention over the modalities, and maps scaled by its weights.

This project's own design; the paper (arXiv 2407.19981) published no equations. `docs/amr.md` has
ours. The second half of AMR, over the two modalities' logits, is `reweight.py`.
"""

import math

import torch
from torch import Tensor, nn

from components.models.pooling import gate, person_mean, video_mean


def floored_softmax(scores: Tensor, temperature: float, floor: float) -> Tensor:
    """Modality weights floor + (1 - 2 floor) softmax(scores / temperature) over the last axis."""
    return floor + (1.0 - 2.0 * floor) * torch.softmax(scores / temperature, -1)


class ModalityAttention(nn.Module):
    """A query from the joint context attends to one token of each modality, head by head.

    score_gm = q_g . t_gm / sqrt(width / heads) with q = W context + b; the weights are the
    `floored_softmax` of the scores over the two modalities, and they are all it returns. W and b
    start at 0, so every weight starts at 1/2.
    """

    def __init__(self, width: int, *, heads: int, temperature: float, floor: float) -> None:
        super().__init__()
        self.heads, self.temperature, self.floor = heads, temperature, floor
        self.query = zero(nn.Linear(width, width))

    def forward(self, context: Tensor, tokens: list[Tensor], prior: Tensor | float = 0.0) -> Tensor:
        """Context and tokens [B, width] -> weights [B, heads, 2]; `prior` is added to scores."""
        query = self.query(context).unflatten(1, (self.heads, -1))
        dots = [(query * token.unflatten(1, (self.heads, -1))).sum(-1) for token in tokens]
        scores = torch.stack(dots, -1).float() / math.sqrt(query.shape[-1])
        return floored_softmax(scores + prior, self.temperature, self.floor)


class StageReweighter(nn.Module):
    """Weights per sample and channel group: group g of modality m is scaled by 2 w_mg.

    rgb_channels, skeleton_channels: channels of the two maps; both must divide by `heads`
    heads: channel groups, each with weights of its own
    width: length of a modality's token, rounded up to a multiple of `heads`
    temperature, floor: see `floored_softmax`; the scale stays within [2 floor, 2 - 2 floor]
    weights: False leaves the modality weights out (gates alone)
    gates: scale every channel by 2 sigmoid(.) of the joint context besides
    detach: in training, compute weights and gates from features cut off the graph (gradient past
        the weights); in eval mode, where attacks run, the gradient is always the full one

    At the start every weight is 1/2 and every gate 1, so the maps pass unchanged.
    """

    def __init__(
        self,
        rgb_channels: int,
        skeleton_channels: int,
        *,
        heads: int = 4,
        width: int = 8,
        temperature: float = 1.0,
        floor: float = 0.1,
        weights: bool = True,
        gates: bool = True,
        detach: bool = False,
    ) -> None:
        super().__init__()
        self.sizes = [rgb_channels, skeleton_channels]
        for name, channels in zip(("video", "skeleton"), self.sizes, strict=True):
            if channels % heads:
                raise ValueError(
                    f"{channels} {name} channels do not divide into model.amr.heads={heads} groups"
                )
        width = math.ceil(width / heads) * heads
        self.detach = detach
        self.tokens = nn.ModuleList(token(channels, width) for channels in self.sizes)
        self.context = nn.Linear(2 * width, width)
        self.attention = (
            ModalityAttention(width, heads=heads, temperature=temperature, floor=floor)
            if weights
            else None
        )
        self.excite = zero(nn.Linear(width, sum(self.sizes))) if gates else None

    def forward(
        self, rgb: Tensor, skeleton: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Maps [B, C_m, ...] -> maps of the same shapes and weights [B, heads, 2] or None."""
        pooled = [video_mean(rgb), person_mean(skeleton, real)]
        if self.detach and self.training:
            pooled = [p.detach() for p in pooled]
        tokens = [token(p) for token, p in zip(self.tokens, pooled, strict=True)]
        context = torch.relu(self.context(torch.cat(tokens, 1)))
        scales = [torch.ones(1, c, device=rgb.device) for c in self.sizes]
        weights = None
        if self.attention is not None:
            weights = self.attention(context, tokens)
            scales = [
                (2.0 * w).repeat_interleave(c // w.shape[1], 1)
                for w, c in zip(weights.unbind(-1), self.sizes, strict=True)
            ]
        if self.excite is not None:
            gates = (2.0 * torch.sigmoid(self.excite(context).float())).split(self.sizes, 1)
            scales = [scale * g for scale, g in zip(scales, gates, strict=True)]
        return gate(rgb, scales[0]), gate(skeleton, scales[1]), weights


def token(channels: int, width: int) -> nn.Module:
    """Features [B, channels] -> token [B, width]; normalised first, as scales differ by stream."""
    norm = nn.LayerNorm(channels, elementwise_affine=False)
    return nn.Sequential(norm, nn.Linear(channels, width))


def zero(layer: nn.Linear) -> nn.Linear:
    """A layer that starts as the constant 0, and learns because its input is not."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
