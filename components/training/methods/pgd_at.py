"""Adversarial training with PGD (Madry et al., arXiv 1706.06083)."""

from components.training.methods.base import Method, craft_pgd, minimise_adversarial

METHOD = Method(craft_pgd, minimise_adversarial)
