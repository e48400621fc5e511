"""One modality alone, as a row of tables: what a fusion adds can only be seen beside it.

The other stream is built and run, so that inputs and files are the same, and has no say.
"""

from torch import Tensor, nn

from components.models.fusions.fusion import Fusion, Streams


class SingleMerge(nn.Module):
    """The logits of one modality's head."""

    def __init__(self, modality: int) -> None:
        super().__init__()
        self.modality = modality

    def forward(
        self, rgb: Tensor, skeleton: Tensor, rgb_logits: Tensor, skeleton_logits: Tensor
    ) -> tuple[Tensor, None]:
        """Logits [B, K] of each -> those of `modality` (0 = video, 1 = skeleton), no weights."""
        return (rgb_logits, skeleton_logits)[self.modality], None


def rgb_alone(streams: Streams) -> Fusion:
    """The video alone; it has no settings."""
    return Fusion(SingleMerge(0), streams.features(), time_parts=streams.time_parts())


def skeleton_alone(streams: Streams) -> Fusion:
    """The skeleton alone; it has no settings."""
    return Fusion(SingleMerge(1), streams.features(), time_parts=streams.time_parts())
