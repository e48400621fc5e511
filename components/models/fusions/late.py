"""Late fusion: each modality is classified by itself, and the logits are averaged."""

from torch import Tensor, nn

from components.models.fusions.fusion import Fusion, Streams


class LateMerge(nn.Module):
    """Mean of the two modalities' logits."""

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> tuple[Tensor, None]:
        """Features [B, C_m] and logits [B, K] of each -> logits [B, K], no weights."""
        return (rgb_logits + skeleton_logits) / 2, None


def late(streams: Streams) -> Fusion:
    """Late fusion; it has no settings."""
    return Fusion(LateMerge(), streams.features(), time_parts=streams.time_parts())
