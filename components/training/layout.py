"""Memory layout: video as channels-last, which GPU convolutions in bf16 prefer."""

import torch
from torch import nn

from components.batch import Batch


def channels_last(model: nn.Module) -> nn.Module:
    """Put the 3-d convolutions' weights into channels-last layout, in place; values stay.

    `Module.to(memory_format=torch.channels_last_3d)` refuses models that have 2-d ones as well.
    """
    for parameter in model.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return model


def channels_last_video(batch: Batch) -> Batch:
    """The same clips with their video in channels-last layout."""
    return batch._replace(rgb=batch.rgb.contiguous(memory_format=torch.channels_last_3d))
