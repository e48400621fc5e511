"""MinSim and ExFMem (Tian and Xu, CVPR 2021), the likely rivals of the AMR paper.

MinSim pushes the two modalities' features apart by their cosine similarity. ExFMem holds a
dictionary of feature patterns and mixes each feature with its sparse reconstruction, so that a
perturbation outside the dictionary's span is weakened. The unrolled sparse coding may obstruct an
attacker's gradients, so a robust accuracy of it needs checks that do not follow gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.merge import ConcatMerge, Merged


class CommonSpace(nn.Module):
    """Both feature vectors brought to one width, which a cosine similarity needs."""

    def __init__(self, rgb_features: int, skeleton_features: int, width: int) -> None:
        super().__init__()
        self.project = nn.ModuleDict(
            {"rgb": nn.Linear(rgb_features, width), "skeleton": nn.Linear(skeleton_features, width)}
        )

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """[B, C_m] by modality -> [B, width] by modality, not negative."""
        return {name: torch.relu(self.project[name](f)) for name, f in features.items()}


def similarity(output: ModelOutput) -> Tensor:
    """MinSim's loss: mean cosine similarity of the two modalities' features over the batch."""
    rgb, skeleton = output.features["rgb"].float(), output.features["skeleton"].float()
    return F.cosine_similarity(rgb, skeleton, dim=1).mean()


def _shrink(x: Tensor, by: Tensor) -> Tensor:
    """Soft threshold: towards 0 by `by`, and 0 within it."""
    return x.sign() * torch.relu(x.abs() - by)


class FeatureMemory(nn.Module):
    """One modality's dictionary: f -> mix * D a + (1 - mix) * f, with a the sparse code of f.

    a minimises |f - D a|^2 / 2 + sparsity * |a|_1, by `steps` steps of ISTA from 0. The columns
    of D have length 1; they are learned from the reconstruction loss alone, on detached features.
    """

    def __init__(
        self,
        features: int,
        *,
        atoms: int = 64,
        sparsity: float = 0.1,
        steps: int = 20,
        mix: float = 0.5,
    ) -> None:
        super().__init__()
        self.sparsity, self.steps, self.mix = sparsity, steps, mix
        self.dictionary = nn.Parameter(torch.randn(features, atoms))

    def atoms(self) -> Tensor:
        """The dictionary [C, A] with columns of length 1, in float32."""
        return F.normalize(self.dictionary.float(), dim=0)

    def code(self, feature: Tensor, atoms: Tensor) -> Tensor:
        """Sparse code [B, A] of features [B, C]."""
        gram = atoms.T @ atoms
        # The largest row sum bounds the largest eigenvalue, so this step never diverges.
        step = 1.0 / gram.detach().abs().sum(1).max()
        match = feature.float() @ atoms
        code = torch.zeros_like(match)
        for _ in range(self.steps):
            code = _shrink(code + step * (match - code @ gram), step * self.sparsity)
        return code

    def forward(self, feature: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        atoms = self.atoms().detach()
        rebuilt = self.code(feature, atoms) @ atoms.T
        return (self.mix * rebuilt + (1.0 - self.mix) * feature).to(feature.dtype)

    def loss(self, feature: Tensor) -> Tensor:
        """Mean squared reconstruction error, with gradient to the dictionary alone."""
        feature, atoms = feature.detach().float(), self.atoms()
        code = self.code(feature, atoms.detach())
        return (feature - code @ atoms.T).square().mean()


class MemoryMerge(nn.Module):
    """ExFMem: both features pass their memories, then one linear layer over both."""

    def __init__(
        self, rgb: FeatureMemory, skeleton: FeatureMemory, classifier: ConcatMerge
    ) -> None:
        super().__init__()
        self.rgb = rgb
        self.skeleton = skeleton
        self.classifier = classifier

    def forward(
        self,
        rgb: Tensor,
        skeleton: Tensor,
        rgb_logits: Tensor | None,
        skeleton_logits: Tensor | None,
    ) -> Merged:
        """See `merge.py`."""
        return self.classifier(self.rgb(rgb), self.skeleton(skeleton), rgb_logits, skeleton_logits)

    def loss(self, output: ModelOutput) -> Tensor:
        """The reconstruction losses of both dictionaries."""
        features = output.features
        return self.rgb.loss(features["rgb"]) + self.skeleton.loss(features["skeleton"])
