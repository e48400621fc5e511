"""MinSim (Tian and Xu, CVPR 2021): features of the two modalities are trained to be dissimilar.

A loss on their cosine similarity, so that a perturbation of one modality does not carry over to
what the other contributes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.fusions.concat import ConcatMerge
from components.models.fusions.fusion import Fusion, Streams


class CommonSpace(nn.Module):
    """Both feature vectors mapped to one width, which a cosine similarity needs."""

    def __init__(self, rgb_features: int, skeleton_features: int, width: int) -> None:
        super().__init__()
        self.project = nn.ModuleDict(
            {"rgb": nn.Linear(rgb_features, width), "skeleton": nn.Linear(skeleton_features, width)}
        )

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """[B, C_m] by modality -> [B, width] by modality, not negative."""
        return {name: torch.relu(self.project[name](f)) for name, f in features.items()}


def similarity(output: ModelOutput) -> Tensor:
    """MinSim's loss (scalar): mean cosine similarity of the two modalities' features [B, C]."""
    rgb, skeleton = output.features["rgb"].float(), output.features["skeleton"].float()
    return F.cosine_similarity(rgb, skeleton, dim=1).mean()


def minsim(streams: Streams) -> Fusion:
    """Concatenation in a common space plus the similarity loss; it has no settings."""
    features = streams.features()
    width = min(features)
    return Fusion(
        merge=ConcatMerge(width, width, streams.num_classes),
        features=(width, width),
        common=CommonSpace(*features, width),
        penalties=[similarity],
        needs_heads=False,
        time_parts=streams.time_parts(),
    )
