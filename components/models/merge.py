"""Last step of every model: two feature vectors and two sets of logits become one prediction.

Each merge is called with the features [B, C] after dropout and the per-modality logits [B, K] (None
where the model has no such heads), and returns logits [B, K] and modality weights or None.
"""

import torch
from torch import Tensor, nn


class LateMerge(nn.Module):
    """Mean of the logits."""

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """See the module."""
        return (rgb_logits + skeleton_logits) / 2, None


class ConcatMerge(nn.Module):
    """One linear layer over both feature vectors."""

    def __init__(self, rgb_features: int, skeleton_features: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(rgb_features + skeleton_features, num_classes)

    def forward(
        self,
        rgb: Tensor,
        skeleton: Tensor,
        rgb_logits: Tensor | None,
        skeleton_logits: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """See the module."""
        return self.classifier(torch.cat([rgb, skeleton], 1)), None
