"""A toy problem with a cue in each modality and a small honest net, trained in a second."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from components.attacks import Budget, ThreatModel
from components.batch import Batch, ModelOutput

CLASSES = 4


class TinyTwoStream(nn.Module):
    """Two pooled streams, a logit each, and weights that depend on the input."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Conv3d(3, 8, (1, 4, 4), (1, 4, 4)), nn.SiLU())
        self.joints = nn.Sequential(nn.Conv2d(6, 16, (1, 25)), nn.SiLU())
        self.rgb_head, self.skeleton_head = nn.Linear(32, classes), nn.Linear(16, classes)
        self.gate = nn.Linear(48, 2)

    def forward(self, rgb: Tensor, skeleton: Tensor, present: Tensor) -> ModelOutput:
        video = self.video(4 * rgb - 2).mean(2)
        video = nn.functional.adaptive_avg_pool2d(video, 2).flatten(1)
        joints = (skeleton * present[:, None, :, None].float()).permute(0, 1, 4, 2, 3).flatten(1, 2)
        joints = self.joints(2 * joints).mean(2).flatten(1)
        weight = self.gate(torch.cat([video, joints], 1)).softmax(1)
        aux = {"rgb": self.rgb_head(video), "skeleton": self.skeleton_head(joints)}
        logits = 2 * (weight[:, :1] * aux["rgb"] + weight[:, 1:] * aux["skeleton"])
        return ModelOutput(logits, aux, {"logits": weight}, {"rgb": video, "skeleton": joints})


def make_clips(n: int, seed: int = 0, classes: int = CLASSES) -> Batch:
    """Clips whose class shows as a bright corner of the video and as raised joints."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % classes
    rgb = 0.4 + 0.1 * torch.randn(n, 3, 2, 16, 16, generator=g)
    skeleton = 0.3 * torch.randn(n, 3, 4, 25, 2, generator=g)
    for k in range(classes):
        y, x = 8 * (k // 2 % 2), 8 * (k % 2)
        rgb[label == k, :, :, y : y + 8, x : x + 8] += 0.08
        skeleton[label == k, 1, :, 6 * k : 6 * k + 6] += 0.25
    present = torch.ones(n, 4, 2, dtype=torch.bool)
    present[:, :, 1] = label[:, None] % 2 == 0
    skeleton = skeleton * present[:, None, :, None].float()
    ids = tuple(f"S001C001P001R001A{i:04d}" for i in range(n))
    return Batch(rgb.clamp(0, 1), skeleton, present, label, ids)


def train_briefly(model: nn.Module, steps: int = 150) -> nn.Module:
    """Enough steps to be right on nearly every toy clip."""
    clips = make_clips(128, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(
            model(clips.rgb, clips.skeleton, clips.present).logits, clips.label
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="session")
def honest() -> nn.Module:
    """A trained model with nothing to hide."""
    torch.manual_seed(0)
    return train_briefly(TinyTwoStream())


@pytest.fixture(scope="session")
def clips_maker() -> Callable[..., Batch]:
    """The function that makes toy clips."""
    return make_clips


@pytest.fixture(scope="session")
def clips() -> Batch:
    """Forty fresh clips."""
    return make_clips(40, seed=2)


@pytest.fixture(scope="session")
def threat() -> ThreatModel:
    """Budgets at which the honest model breaks on some clips and stands on others."""
    return ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))
