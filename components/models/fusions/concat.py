"""Concatenation: one linear classifier over the features of both modalities."""

import torch
from torch import Tensor, nn

from components.models.fusions.fusion import Fusion, Streams


class ConcatMerge(nn.Module):
    """One linear layer over both feature vectors, side by side."""

    def __init__(self, rgb_features: int, skeleton_features: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(rgb_features + skeleton_features, num_classes)

    def forward(
        self,
        rgb: Tensor,
        skeleton: Tensor,
        rgb_logits: Tensor | None,
        skeleton_logits: Tensor | None,
    ) -> tuple[Tensor, None]:
        """Features [B, C_m] of each -> logits [B, K], no weights; the heads' logits are unused."""
        return self.classifier(torch.cat([rgb, skeleton], 1)), None


def concat(streams: Streams) -> Fusion:
    """Fusion of features; it has no settings."""
    features = streams.features()
    merge = ConcatMerge(*features, streams.num_classes)
    return Fusion(merge, features, needs_heads=False, time_parts=streams.time_parts())
