"""A small video classifier to attack: made-up clips or an NTU-layout folder, and its training."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.attacks import Budget, SingleStream, ThreatModel, pgd
from components.batch import Batch
from components.ntu.skeleton import Rejected
from components.sources import ntu
from components.sources.ingest import keep

FRAMES, SIZE = 8, 32


class Net(nn.Module):
    """Three 3-D convolutions and a linear head; brings its own normalisation."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def block(fan_in: int, fan_out: int, stride: tuple[int, int, int]) -> nn.Sequential:
            convolution = nn.Conv3d(fan_in, fan_out, 3, stride, 1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm3d(fan_out), nn.ReLU())

        self.body = nn.Sequential(
            block(3, 16, (1, 2, 2)), block(16, 32, (2, 2, 2)), block(32, 64, (2, 2, 2))
        )
        self.head = nn.Linear(64, classes)

    def forward(self, video: Tensor) -> Tensor:
        """Logits [B, K] of video [B, 3, T, H, W] in [0, 1]."""
        return self.head(self.body((video - 0.5) * 4).amax(2).mean((2, 3)))


def made_up(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` clips of 8 classes: a blob that moves in one of 8 directions over a noisy ground."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 8, (count,), generator=draw)
    angle = label * torch.pi / 4 + 0.25 * torch.randn(count, generator=draw)
    centre = SIZE * (0.35 + 0.3 * torch.rand(count, 2, generator=draw))
    speed = 1.2 + torch.rand(count, generator=draw)
    time = torch.arange(FRAMES) - FRAMES / 2
    way = torch.stack([angle.sin(), angle.cos()], 1)[:, :, None] * speed[:, None, None] * time
    place = centre[:, :, None] + way
    grid = torch.arange(SIZE)
    rows = (grid[:, None] - place[:, 0, :, None, None]) ** 2
    columns = (grid - place[:, 1, :, None, None]) ** 2
    blob = torch.exp(-(rows + columns) / 12)[:, None]
    colour = 0.15 + 0.35 * torch.rand(count, 3, 1, 1, 1, generator=draw)
    ground = 0.3 * torch.rand(count, 3, 1, SIZE, SIZE, generator=draw)
    noise = 0.1 * torch.randn(count, 3, FRAMES, SIZE, SIZE, generator=draw)
    return (ground + 0.2 + colour * blob + noise).clamp(0, 1), label


def from_folder(root: Path) -> tuple[Tensor, Tensor, Tensor]:
    """(clips, labels, whether the subject's number is odd) of an NTU-layout folder."""
    clips, actions, odd = [], [], []
    for found in ntu.find(root).clips:
        try:
            kept = keep(ntu.SOURCE, root, found, frames=FRAMES, size=SIZE, margin=0.15)
        except Rejected as error:
            print(f"left out: {found.clip}: {error}")
            continue
        # A clip with fewer frames than asked repeats its own, as the data path does.
        index = torch.linspace(0, len(kept.rgb) - 1, FRAMES).round().long()
        clips.append(torch.from_numpy(kept.rgb)[index].permute(3, 0, 1, 2).float() / 255)
        actions.append(found.clip.action)
        odd.append(found.clip.subject % 2 == 1)
    if not clips:
        raise ValueError(f"{root}: no readable clip in NTU layout")
    names = sorted(set(actions))
    label = torch.tensor([names.index(action) for action in actions])
    return torch.stack(clips), label, torch.tensor(odd)


def as_batch(clips: Tensor, label: Tensor, first: int = 0) -> Batch:
    """Video alone as a Batch; its skeleton is one empty frame that nobody reads."""
    size = len(label)
    return Batch(
        clips,
        torch.zeros(size, 3, 1, 25, 2),
        torch.zeros(size, 1, 2, dtype=torch.bool),
        label,
        tuple(f"clip{first + i}" for i in range(size)),
    )


def train(clips: Tensor, label: Tensor, epochs: int, eps: float, seed: int = 0) -> Net:
    """PGD-2 adversarial training, so that robust accuracy is neither 0 nor 1."""
    torch.manual_seed(seed)
    net = Net(int(label.max()) + 1)
    model, threat = SingleStream(net, "rgb"), ThreatModel(Budget("Linf", eps))
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-3)
    steps = epochs * -(-len(label) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        for part in torch.randperm(len(label)).split(32):
            batch = as_batch(clips[part], label[part])
            adversarial = pgd(model, batch, threat, seed=epoch, steps=2)
            optimiser.zero_grad()
            F.cross_entropy(net(adversarial.rgb), batch.label).backward()
            optimiser.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def batches(clips: Tensor, label: Tensor, size: int = 32) -> Sequence[Batch]:
    """The clips in batches of 32: dividing a loss by a power of two rounds nothing."""
    starts = range(0, len(label), size)
    return [as_batch(clips[i : i + size], label[i : i + size], i) for i in starts]
