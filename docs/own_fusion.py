"""An own fusion, adversarially trained in plain torch: python docs/own_fusion.py SHARDS [EPOCHS]"""

import sys

import torch
from torch import Tensor, nn

from components.attacks import Budget, ThreatModel
from components.config import Config
from components.datasets import ClipDataset, select_split
from components.evaluation import evaluate_model
from components.models import two_stream
from components.models.fusions import FUSIONS
from components.models.fusions.fusion import Fusion
from components.shards import ShardSet
from components.training.step import TrainTarget, train_step


class Product(nn.Module):  # a product of experts: both streams have to agree
    def forward(self, rgb: Tensor, skeleton: Tensor, video: Tensor, bodies: Tensor) -> tuple:
        return video.log_softmax(1) + bodies.log_softmax(1), None


FUSIONS["product"] = lambda streams: Fusion(Product(), streams.features())
config, shards, epochs = Config(), ShardSet.open(sys.argv[1]), int([*sys.argv, "4"][2])
split, frames, size = select_split(shards, config.data), min(8, shards.frames), min(32, shards.size)
train, test = (
    ClipDataset(shards, rows, split.classes, rgb_frames=frames, rgb_size=size, skeleton_frames=32)
    for rows in (split.train, split.test)
)
torch.manual_seed(0)
model = two_stream(num_classes=len(split.classes), fusion="product", skeleton_frames=32)
target = TrainTarget(model, model, torch.optim.AdamW(model.parameters(), lr=2e-3))
threat = ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))
for epoch in range(epochs):
    for rows in torch.randperm(len(train)).split(16):
        result = train_step(target, train.batch(rows.tolist()), threat, config.train, seed=epoch)
    print(f"epoch {epoch + 1}: loss {float(result.loss) / result.clips:.3f}")
found = evaluate_model(model.eval(), test.batch(range(len(test))), threat, "thin", checks=False)
print("clean", found.summary["clean_acc"]["value"], "worst", found.summary["worst"]["both"])
