"""Joint calibration after the abstract of FIM (Hou et al., 2024): this project's own reading.

Known of FIM: it takes global information of both modalities, learns a joint representation of
them, and calibrates both modalities' features with it. No equations were published. Ours: mean
and maximum of each map as global information, one hidden joint vector, and per modality a gate
and a shift of the channels computed from it.
"""

import torch
from torch import Tensor, nn

from components.models.fusions.fusion import Fusion, Streams
from components.models.fusions.late import LateMerge
from components.models.pooling import gate, person_max, person_mean, stacked, video_mean


class FIM(nn.Module):
    """z = ReLU(LayerNorm(W [mean_v; max_v; mean_k; max_k])); map = 2 sigmoid(A z) map + B z."""

    def __init__(self, rgb_channels: int, skeleton_channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        total = rgb_channels + skeleton_channels
        hidden = max(8, total // reduction)
        self.sizes = [rgb_channels, skeleton_channels]
        self.joint = nn.Sequential(
            nn.Linear(2 * total, hidden), nn.LayerNorm(hidden), nn.ReLU(inplace=True)
        )
        self.calibrate = nn.Linear(hidden, 2 * total)
        # Starts as the identity, so that attaching it to trained backbones disturbs nothing.
        nn.init.zeros_(self.calibrate.weight)
        nn.init.zeros_(self.calibrate.bias)

    def forward(self, rgb: Tensor, skeleton: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, C_m, ...], real [B, M] -> calibrated maps of the same shapes."""
        highest = person_max(skeleton, real).amax((2, 3, 4))
        summary = [video_mean(rgb), rgb.amax((2, 3, 4)), person_mean(skeleton, real), highest]
        gates, shifts = self.calibrate(self.joint(stacked(summary))).chunk(2, 1)
        gates = (2.0 * torch.sigmoid(gates)).split(self.sizes, 1)
        shifts = shifts.split(self.sizes, 1)
        out = [
            gate(m, g) + s.to(m.dtype).view(s.shape + (1,) * (m.dim() - 2))
            for m, g, s in zip((rgb, skeleton), gates, shifts, strict=True)
        ]
        return out[0], out[1]


def fim(streams: Streams) -> Fusion:
    """FIM after the last two stages unless set otherwise, then the mean of the logits."""
    joins = streams.joins(default=(-2, -1))
    modules = [FIM(*streams.channels(join)) for join in joins]
    return Fusion(LateMerge(), streams.features(), joins, modules, time_parts=streams.time_parts())
