"""MMTM (Joze et al., CVPR 2020): a fusion that attaches between two feature maps.

Squeeze both maps, excite each stream's channels from the joint vector. This follows the corrected
code of the authors (branch bug-fix): the gated maps are what goes on to the next stage, and every
person of the skeleton is gated.
"""

import torch
from torch import Tensor, nn

from components.models.fusions.fusion import Fusion, Streams
from components.models.fusions.late import LateMerge
from components.models.pooling import gate, person_mean, stacked, video_mean


class MMTM(nn.Module):
    """z = ReLU(W [s_v; s_k] + b); g_m = factor * sigmoid(W_m z + b_m); each map times its gate.

    factor: 2 as in the paper (its gates start near the identity); the authors' code has 1.
    """

    def __init__(
        self, rgb_channels: int, skeleton_channels: int, *, reduction: int = 4, factor: float = 2.0
    ) -> None:
        super().__init__()
        total = rgb_channels + skeleton_channels
        self.factor = factor
        self.squeeze = nn.Linear(total, total // reduction)
        self.rgb_gate = nn.Linear(total // reduction, rgb_channels)
        self.skeleton_gate = nn.Linear(total // reduction, skeleton_channels)

    def forward(self, rgb: Tensor, skeleton: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, C, T, H, W] and [B, C, M, S, V], real [B, M] -> the same maps, gated."""
        joint = torch.relu(self.squeeze(stacked([video_mean(rgb), person_mean(skeleton, real)])))
        rgb = gate(rgb, self.factor * torch.sigmoid(self.rgb_gate(joint)))
        skeleton = gate(skeleton, self.factor * torch.sigmoid(self.skeleton_gate(joint)))
        return rgb, skeleton


def mmtm(streams: Streams) -> Fusion:
    """MMTM after the last two stages unless set otherwise, then the mean of the logits."""
    joins = streams.joins(default=(-2, -1))
    modules = [MMTM(*streams.channels(join)) for join in joins]
    return Fusion(LateMerge(), streams.features(), joins, modules, time_parts=streams.time_parts())
