"""A tiny two-stream model with heads and modality weights, and a batch with absent persons."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from components.batch import Batch, ModelOutput, logits_of


class TwoStream(nn.Module):
    """Convolution on video, linear on skeletons, logits joined by learned modality weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Conv3d(3, 6, 3, stride=2), nn.BatchNorm3d(6), nn.Dropout(0.5))
        self.rgb_head = nn.Linear(6, classes)
        self.joints = nn.Linear(3 * 6 * 25 * 2, 12)
        self.skeleton_head = nn.Linear(12, classes)
        self.gate = nn.Linear(2 * classes, 2)

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput:
        video = 6 * self.rgb_head(self.video(rgb - 0.5).tanh().mean((2, 3, 4)))
        joints = 2 * self.skeleton_head(self.joints(skeleton.flatten(1)).tanh())
        weights = self.gate(torch.cat([video, joints], 1)).softmax(1)
        fused = weights[:, :1] * video + weights[:, 1:] * joints
        return ModelOutput(fused, {"rgb": video, "skeleton": joints}, {"logits": weights}, {})


@pytest.fixture(scope="session")
def make_model() -> Callable[..., TwoStream]:
    def make(classes: int = 5, seed: int = 0) -> TwoStream:
        torch.manual_seed(seed)
        model = TwoStream(classes)
        with torch.no_grad():
            model.video[1].running_var.fill_(0.05)
            for layer in (model.video[0], model.joints, model.rgb_head, model.skeleton_head):
                layer.bias.zero_()  # so that all classes get their share of random clips
        return model

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Clips labelled as `model` sees them (all right when clean), half without a second person."""

    def make(model: nn.Module, size: int = 4, seed: int = 1) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        rgb = torch.rand(size, 3, 4, 8, 8, generator=draw)
        skeleton = torch.randn(size, 3, 6, 25, 2, generator=draw) * 0.5
        present = torch.ones(size, 6, 2, dtype=torch.bool)
        present[::2, :, 1] = False
        present[1::2, 4:, 1] = False
        skeleton = skeleton * present[:, None, :, None, :]
        mode = model.training
        with torch.no_grad():
            label = logits_of(model.eval()(rgb, skeleton, present)).argmax(1)
        model.train(mode)
        return Batch(rgb, skeleton, present, label, tuple(f"clip{i}" for i in range(size)))

    return make


@pytest.fixture(scope="module")
def model(make_model) -> TwoStream:
    """A small model in evaluation mode; a module of tests may have its own."""
    return make_model().eval()


@pytest.fixture(scope="module")
def clips(model, make_batch) -> Batch:
    """Three clips that `model` gets right."""
    return make_batch(model, size=3)


@pytest.fixture(scope="session")
def wrong() -> Callable[[nn.Module, Batch], Tensor]:
    """bool [B]: which clips the model gets wrong, in eval mode."""

    def ask(model: nn.Module, batch: Batch) -> Tensor:
        mode = model.training
        with torch.no_grad():
            logits = logits_of(model.eval()(batch.rgb, batch.skeleton, batch.present))
        model.train(mode)
        return logits.argmax(1) != batch.label

    return ask
