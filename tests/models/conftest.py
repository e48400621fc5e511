"""Small inputs for every test of the models."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def inputs() -> Callable[..., Inputs]:
    """Make (rgb, skeleton, present): odd clips have a second person, even clips do not."""

    def make(clips: int = 3, seed: int = 0, frames: int = 16) -> Inputs:
        random = torch.Generator().manual_seed(seed)
        rgb = torch.rand(clips, 3, 4, 24, 24, generator=random)
        skeleton = torch.randn(clips, 3, frames, 25, 2, generator=random)
        present = torch.ones(clips, frames, 2, dtype=torch.bool)
        present[::2, :, 1] = False
        return rgb, skeleton * present[:, None, :, None, :], present

    return make
