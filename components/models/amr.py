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


class StageReweighter(nn.Module):
    """Weights per sample and channel group: group g of modality m is scaled by 2 w_mg.

    rgb_channels, skeleton_channels: channels of the two maps; both must divide by `heads`
    heads: channel groups, each with weights of its own
    width: length of a modality's token, rounded up to a multiple of `heads`
    temperature, floor: see `floored_softmax`; the scale stays within [2 floor, 2 - 2 floor]
    weights: False leaves the modality weights out (gates alone)
    gates: scale every channel by 2 sigmoid(.) of the joint token besides
    detach: compute weights and gates from features cut off the graph (gradient past the weights)

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
        for name, channels in (("rgb", rgb_channels), ("skeleton", skeleton_channels)):
            if channels % heads:
                raise ValueError(
                    f"{channels} {name} channels do not divide into model.amr.heads={heads} groups"
                )
        if not (weights or gates):
            raise ValueError("AMR at a stage needs weights, gates or both")
        width = math.ceil(width / heads) * heads
        self.heads, self.temperature, self.floor, self.detach = heads, temperature, floor, detach
        self.norms = nn.ModuleList(
            [
                nn.LayerNorm(channels, elementwise_affine=False)
                for channels in (rgb_channels, skeleton_channels)
            ]
        )
        self.keys = nn.ModuleList(
            [nn.Linear(rgb_channels, width), nn.Linear(skeleton_channels, width)]
        )
        self.context = nn.Linear(2 * width, width)
        self.query = _zero(nn.Linear(width, width)) if weights else None
        self.excite = _zero(nn.Linear(width, rgb_channels + skeleton_channels)) if gates else None

    def forward(
        self, rgb: Tensor, skeleton: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Maps [B, C_m, ...] -> maps of the same shapes and weights [B, heads, 2] or None."""
        pooled = [video_mean(rgb), person_mean(skeleton, real)]
        if self.detach:
            pooled = [p.detach() for p in pooled]
        tokens = [key(norm(p)) for key, norm, p in zip(self.keys, self.norms, pooled, strict=True)]
        context = torch.relu(self.context(torch.cat(tokens, 1)))
        scale_rgb = scale_skeleton = None
        weights = None
        if self.query is not None:
            weights = self._weigh(self.query(context), tokens)
            scale_rgb, scale_skeleton = (
                (2.0 * weights[..., m]).repeat_interleave(p.shape[1] // self.heads, 1)
                for m, p in enumerate(pooled)
            )
        if self.excite is not None:
            sizes = [p.shape[1] for p in pooled]
            gates = (2.0 * torch.sigmoid(self.excite(context).float())).split(sizes, 1)
            scale_rgb = gates[0] if scale_rgb is None else scale_rgb * gates[0]
            scale_skeleton = gates[1] if scale_skeleton is None else scale_skeleton * gates[1]
        assert scale_rgb is not None and scale_skeleton is not None
        return gate(rgb, scale_rgb), gate(skeleton, scale_skeleton), weights

    def _weigh(self, query: Tensor, tokens: list[Tensor]) -> Tensor:
        """Scaled dot products of the joint query with both tokens, head by head."""
        split = query.unflatten(1, (self.heads, -1))
        scores = [(split * t.unflatten(1, (self.heads, -1))).sum(-1) for t in tokens]
        stacked = torch.stack(scores, -1).float() / math.sqrt(split.shape[-1])
        return floored_softmax(stacked, self.temperature, self.floor)


def _zero(layer: nn.Linear) -> nn.Linear:
    """A layer that starts as the constant 0, and learns because its input does not."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
