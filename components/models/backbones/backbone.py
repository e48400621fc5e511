"""What a backbone is: stages in a row, each with its number of channels, and a pooling at the end.

A fusion can attach after any stage, because the two-stream model runs the stages one by one.
"""

from torch import Tensor, nn

from components.models.pooling import person_parts, video_parts


class Backbone(nn.Module):
    """Common to both modalities.

    channels: channels of the map after each stage
    features: length of the pooled feature vector
    """

    channels: tuple[int, ...]
    features: int
    layers: nn.ModuleList

    @property
    def stages(self) -> list[nn.Module]:
        """The stages in order."""
        return list(self.layers)

    def begin(self, x: Tensor) -> Tensor:
        """What comes before the first stage, [B, C, ...] -> [B, C', ...]; nothing by default."""
        return x


class VideoBackbone(Backbone):
    """Stages map [B, C, T, H, W] to [B, C', T', H', W']."""

    def pool(self, video: Tensor, parts: int = 1) -> Tensor:
        """Last map [B, C, T, H, W] -> features [B, parts * C]: means of parts of time."""
        return video_parts(video, parts)


class SkeletonBackbone(Backbone):
    """Stages map [B, C, M, S, V] and real [B, M] to [B, C', M, S', V']; M = 1 once merged.

    motion: whether the input has the three channels of motion besides the three of position
    """

    motion: bool

    def pool(self, skeleton: Tensor, real: Tensor, parts: int = 1) -> Tensor:
        """Last map [B, C, M, S, V] and real [B, M] -> features [B, parts * C]."""
        return person_parts(skeleton, real, parts)


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """A stage's channels times the width, as a multiple of 8 so that groups and heads divide it."""
    return max(multiple, round(channels * width / multiple) * multiple)


def strided(index: int, layer: int) -> int:
    """Stride of a layer: 2 for the first of every stage but the first, else 1."""
    return 2 if index > 0 and layer == 0 else 1
