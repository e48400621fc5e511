"""AMR between two feature maps: modality weights from attention, and maps scaled by them.

This project's own design; the paper (arXiv 2407.19981) published no equations. See docs/amr.md.
"""

import math

import torch
from torch import Tensor, nn

from components.models.pooling import gate, person_mean, stacked, video_mean


def floored_softmax(scores: Tensor, temperature: float, floor: float) -> Tensor:
    """Modality weights floor + (1 - 2 floor) softmax(scores / temperature) over the last axis."""
    return floor + (1.0 - 2.0 * floor) * torch.softmax(scores / temperature, -1)


class StageReweighter(nn.Module):
    """Weights per sample and channel group; group g of modality m is scaled by 2 w_mg.

    heads: channel groups, each with weights of its own; both channel numbers must divide by it
    width: length of a modality's token; divides by `heads`
    temperature, floor: see `floored_softmax`; the scale stays within [2 floor, 2 - 2 floor]
    gates: channel gates 2 sigmoid(.) from the joint vector besides (as in MMTM)
    detach: compute the weights from features cut off the graph (gradient past the weights)
    """

    def __init__(
        self,
        rgb_channels: int,
        skeleton_channels: int,
        *,
        heads: int = 4,
        width: int = 32,
        temperature: float = 1.0,
        floor: float = 0.1,
        gates: bool = True,
        detach: bool = False,
        reduction: int = 4,
    ) -> None:
        super().__init__()
        for name, size in (("rgb", rgb_channels), ("skeleton", skeleton_channels), ("w", width)):
            if size % heads:
                raise ValueError(f"{name} width {size} does not divide into {heads} heads")
        self.heads, self.temperature, self.floor, self.detach = heads, temperature, floor, detach
        self.norms = nn.ModuleList([nn.LayerNorm(rgb_channels), nn.LayerNorm(skeleton_channels)])
        self.keys = nn.ModuleList(
            [nn.Linear(rgb_channels, width), nn.Linear(skeleton_channels, width)]
        )
        self.query = nn.Linear(2 * width, width)
        # A zero query scores both modalities alike: weights of 1/2 each, nothing scaled at start.
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        total = rgb_channels + skeleton_channels
        self.squeeze = nn.Linear(total, total // reduction) if gates else None
        self.excite = nn.Linear(total // reduction, total) if gates else None
        if self.excite is not None:
            nn.init.zeros_(self.excite.weight)
            nn.init.zeros_(self.excite.bias)

    def forward(
        self, rgb: Tensor, skeleton: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Maps [B, C, ...] -> maps of the same shapes and weights [B, heads, 2]."""
        pooled = [video_mean(rgb).float(), person_mean(skeleton, real).float()]
        weights = self.weigh([p.detach() for p in pooled] if self.detach else pooled)
        scales = [
            (2.0 * weights[..., m]).repeat_interleave(p.shape[1] // self.heads, 1)
            for m, p in enumerate(pooled)
        ]
        if self.squeeze is not None and self.excite is not None:
            gates = 2.0 * torch.sigmoid(self.excite(torch.relu(self.squeeze(stacked(pooled)))))
            sizes = [p.shape[1] for p in pooled]
            scales = [s * g for s, g in zip(scales, gates.split(sizes, 1), strict=True)]
        return gate(rgb, scales[0]), gate(skeleton, scales[1]), weights

    def weigh(self, pooled: list[Tensor]) -> Tensor:
        """Pooled features of both modalities, [B, C_m] each -> weights [B, heads, 2]."""
        tokens = [key(norm(p)) for key, norm, p in zip(self.keys, self.norms, pooled, strict=True)]
        query = self.query(torch.cat(tokens, 1)).unflatten(1, (self.heads, -1))
        scores = [(query * t.unflatten(1, (self.heads, -1))).sum(-1) for t in tokens]
        scale = math.sqrt(query.shape[-1])
        return floored_softmax(torch.stack(scores, -1) / scale, self.temperature, self.floor)
