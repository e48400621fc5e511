"""ExFMem (Tian and Xu, CVPR 2021): features are mixed with their sparse reconstruction.

Each modality has a dictionary of feature patterns; what a perturbation adds outside its span is
weakened. The unrolled sparse coding may mask an attacker's gradients, so a robust accuracy of it
needs attacks that do not follow gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.fusions.concat import ConcatMerge
from components.models.fusions.fusion import Fusion, Streams
from components.models.fusions.minsim import CommonSpace, similarity


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
        """Features [B, C] -> their mixture with the reconstruction, [B, C]."""
        atoms = self.atoms().detach()
        rebuilt = self.code(feature, atoms) @ atoms.T
        return (self.mix * rebuilt + (1.0 - self.mix) * feature).to(feature.dtype)

    def loss(self, feature: Tensor) -> Tensor:
        """Mean squared error of the rebuilt [B, C]; a scalar, with gradient to the dictionary."""
        feature, atoms = feature.detach().float(), self.atoms()
        code = self.code(feature, atoms.detach())
        return (feature - code @ atoms.T).square().mean()


class MemoryMerge(nn.Module):
    """Both features go through their dictionaries, then one linear layer over both."""

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
    ) -> tuple[Tensor, None]:
        """Features [B, C] of each -> logits [B, K], no weights; the heads' logits are unused."""
        return self.classifier(self.rgb(rgb), self.skeleton(skeleton), rgb_logits, skeleton_logits)

    def loss(self, output: ModelOutput) -> Tensor:
        """The reconstruction losses of both dictionaries, summed (scalar)."""
        features = output.features
        return self.rgb.loss(features["rgb"]) + self.skeleton.loss(features["skeleton"])


def exfmem(streams: Streams) -> Fusion:
    """Concatenation in a common space behind the dictionaries; it has no settings."""
    features = streams.features()
    width = min(features)
    classifier = ConcatMerge(width, width, streams.num_classes)
    merge = MemoryMerge(FeatureMemory(width), FeatureMemory(width), classifier)
    return Fusion(
        merge=merge,
        features=(width, width),
        common=CommonSpace(*features, width),
        penalties=[merge.loss],
        needs_heads=False,
        time_parts=streams.time_parts(),
    )


def minsim_exfmem(streams: Streams) -> Fusion:
    """ExFMem with the similarity loss of MinSim, as its authors combine them."""
    fusion = exfmem(streams)
    return fusion._replace(penalties=[similarity, *fusion.penalties])
