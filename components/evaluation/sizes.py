"""How large a perturbation turned out to be, per clip: norms per modality, bones, acceleration."""

import torch
from torch import Tensor

from components.attacks.plausible import acceleration_change, bone_change
from components.batch import Batch

SIZES = ("rgb_linf", "rgb_l2", "skeleton_linf", "skeleton_l2", "bone_change", "acceleration")


def perturbation_sizes(clean: Batch, adversarial: Batch) -> dict[str, Tensor]:
    """float [B] by name, whatever norm the threat model bounds.

    rgb in units of [0, 1], skeleton in metres; `bone_change` is the largest relative change of a
    bone's length, `acceleration` the largest change of a joint's acceleration (metres a frame^2).
    """
    video = (adversarial.rgb - clean.rgb).flatten(1)
    joints = (adversarial.skeleton - clean.skeleton).flatten(1)
    motion = (clean.skeleton, adversarial.skeleton, clean.present)
    return {
        "rgb_linf": video.abs().amax(1),
        "rgb_l2": torch.linalg.vector_norm(video, dim=1),
        "skeleton_linf": joints.abs().amax(1),
        "skeleton_l2": torch.linalg.vector_norm(joints, dim=1),
        "bone_change": bone_change(*motion),
        "acceleration": acceleration_change(*motion),
    }
