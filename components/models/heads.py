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
    """logits_mk = scale * mean over parts i of cos(part i of feature m, part i of prototype k).

    Both modalities are compared with the same prototypes, so that evidence for a class has the same
    direction in both; and since lengths do not count, neither can outvote the other by a longer
    feature, nor an attacker by stretching one: a logit stays within [-scale, scale]. Normalised
    features and weights are those of Pang et al. (NeurIPS 2020, arXiv 2002.08619, eq. 6, without
    its margin); that the modalities share them is this project's own.

    parts: parts of time in a feature, one after the other; a class is then a sequence of
        directions, and no part of the clip outvotes another.
    Features of unequal length go through a linear map to the shorter one, the same for each part.
    """

    def __init__(
        self,
        rgb_features: int,
        skeleton_features: int,
        num_classes: int,
        *,
        scale: float,
        parts: int = 1,
    ) -> None:
        super().__init__()
        sizes = {"rgb": rgb_features // parts, "skeleton": skeleton_features // parts}
        width = min(sizes.values())
        self.scale, self.parts = scale, parts
        self.project = nn.ModuleDict(
            {name: nn.Linear(size, width) for name, size in sizes.items() if size != width}
        )
        self.prototypes = nn.Parameter(torch.randn(num_classes, parts * width))

    def forward(self, features: Features) -> Features:
        """Features [B, parts * C_m] by modality -> logits [B, K] by modality."""
        prototypes = self._unit(self.prototypes)
        logits = {}
        for name, feature in features.items():
            part = feature.unflatten(1, (self.parts, -1))
            if name in self.project:
                part = self.project[name](part)
            unit = self._unit(part.flatten(1).float())
            logits[name] = self.scale / self.parts * F.linear(unit, prototypes)
        return logits

    def _unit(self, vectors: Tensor) -> Tensor:
        """Every part of [N, parts * C] to length 1.

        The bound keeps gradients finite where dropout or ReLU left nothing of a feature.
        """
        parts = vectors.unflatten(1, (self.parts, -1))
        return F.normalize(parts, dim=2, eps=1e-4).flatten(1)
