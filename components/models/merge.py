"""Last step of every model: two feature vectors and two sets of logits become one prediction.

A merge is called with the features [B, C_m] after dropout and the per-modality logits [B, K] (None
where the model has no heads), and returns logits [B, K] and modality weights or None. The merge of
AMR is in `reweight.py`, that of ExFMem in `memory.py`.
"""

import torch
from torch import Tensor, nn

Merged = tuple[Tensor, Tensor | None]


class LateMerge(nn.Module):
    """Mean of the logits."""

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> Merged:
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
    ) -> Merged:
        """See the module."""
        return self.classifier(torch.cat([rgb, skeleton], 1)), None
