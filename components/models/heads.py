"""Per-modality classifiers: two feature vectors become two sets of logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = dict[str, Tensor]


class LinearHeads(nn.ModuleDict):
    """One linear layer a modality."""

    def __init__(self, rgb_features: int, skeleton_features: int, num_classes: int) -> None:
        sizes = {"rgb": rgb_features, "skeleton": skeleton_features}
        super().__init__({name: nn.Linear(size, num_classes) for name, size in sizes.items()})

    def forward(self, features: Features) -> Features:
        """Features [B, C_m] by modality -> logits [B, K] by modality."""
        return {name: head(features[name]) for name, head in self.items()}


class PrototypeHeads(nn.Module):
    """logits_mk = scale * cos(feature of modality m, prototype of class k).

    Both modalities answer to the same prototypes, so what they know of a class points the same
    way; and since lengths do not count, neither can outvote the other by a longer feature, nor an
    attacker by stretching one: a logit stays within [-scale, scale]. Normalised features and
    weights are those of Pang et al. (NeurIPS 2020, arXiv 2002.08619, eq. 6, without its margin);
    that the modalities share them is this project's own.

    Features of unequal length go through a linear map to the shorter one.
    """

    def __init__(
        self, rgb_features: int, skeleton_features: int, num_classes: int, *, scale: float
    ) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"model.amr.prototype_scale={scale}: a scale of cosines is above 0")
        width = min(rgb_features, skeleton_features)
        sizes = {"rgb": rgb_features, "skeleton": skeleton_features}
        self.scale = scale
        self.project = nn.ModuleDict(
            {name: nn.Linear(size, width) for name, size in sizes.items() if size != width}
        )
        self.prototypes = nn.Parameter(torch.randn(num_classes, width))

    def forward(self, features: Features) -> Features:
        """Features [B, C_m] by modality -> logits [B, K] by modality."""
        prototypes = F.normalize(self.prototypes, dim=1)
        logits = {}
        for name, feature in features.items():
            if name in self.project:
                feature = self.project[name](feature)
            # The bound keeps gradients finite where dropout or ReLU left nothing of a feature.
            unit = F.normalize(feature.float(), dim=1, eps=1e-4)
            logits[name] = self.scale * F.linear(unit, prototypes)
        return logits
