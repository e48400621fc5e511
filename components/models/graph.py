"""The Kinect v2 body as a graph, for the graph convolutions."""

import torch
from torch import Tensor

CENTRE = 20  # spine at the shoulders
# (joint, its neighbour one step nearer to the centre), joints from 0 as in NTU files
BONES = (
    (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9),
    (11, 10), (12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18),
    (21, 22), (22, 7), (23, 24), (24, 11),
)  # fmt: skip
JOINTS = 25


def bones_inward() -> Tensor:
    """0/1 matrix [25, 25]; column v marks the neighbour of v that lies nearer to the centre."""
    inward = torch.zeros(JOINTS, JOINTS)
    for outer, inner in BONES:
        inward[inner, outer] = 1.0
    return inward


def by_column(adjacency: Tensor) -> Tensor:
    """Each column divided by its sum (columns of zeros stay): A D^-1."""
    return adjacency / adjacency.sum(0, keepdim=True).clamp(min=1e-12)


def spatial_partition() -> Tensor:
    """ST-GCN's three subsets [3, 25, 25]: itself, nearer to the centre, farther from it.

    Yan et al., AAAI 2018, section 3.3. Entry (k, u, v) is the weight of joint u in the update of
    v; the three together are normalised by column.
    """
    inward = bones_inward()
    whole = by_column(torch.eye(JOINTS) + inward + inward.T)
    return torch.stack([whole * torch.eye(JOINTS), whole * inward, whole * inward.T])


def directed_subsets() -> Tensor:
    """CTR-GCN's three subsets [3, 25, 25]: itself, inward, outward, each normalised by itself."""
    inward = bones_inward()
    return torch.stack([torch.eye(JOINTS), by_column(inward), by_column(inward.T)])
