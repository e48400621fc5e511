"""MART (Wang et al., ICLR 2020): PGD examples, and more weight on clips that are wrong already."""

from torch import nn

from components.batch import Batch
from components.config.train import TrainSection
from components.training import losses
from components.training.methods.base import Method, Terms, craft_pgd, minimise_pair


def minimise(model: nn.Module, clean: Batch, adversarial: Batch, train: TrainSection) -> Terms:
    """See `losses.mart`; both halves go through the model in one pass."""
    return minimise_pair(model, clean, adversarial, train, losses.mart)


METHOD = Method(craft_pgd, minimise)
