"""The Kinect v2 body as a graph, for the graph convolutions."""

import torch
from torch import Tensor

from components.batch import BONES, JOINTS


def bones_inward() -> Tensor:
    """0/1 matrix [25, 25]; column v marks the neighbour of v that lies nearer to the centre."""
    inward = torch.zeros(JOINTS, JOINTS)
    for outer, inner in BONES:
        inward[inner, outer] = 1.0
    return inward


def by_column(adjacency: Tensor) -> Tensor:
    """A D^-1: each column of A [V, V] divided by its sum; columns of zeros stay."""
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
