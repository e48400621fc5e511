"""Natural training: the clips as they are."""

from torch import nn

from components.batch import Batch, logits_of
from components.config.train import TrainSection
from components.training import losses
from components.training.methods.base import InnerProblem, Method, Terms, extras


def craft(problem: InnerProblem) -> Batch:
    """No attack."""
    return problem.clean


def minimise(model: nn.Module, clean: Batch, adversarial: Batch, train: TrainSection) -> Terms:
    """Cross-entropy on the clips as they are."""
    output = model(clean.rgb, clean.skeleton, clean.present)
    loss = losses.cross_entropy(logits_of(output), clean.label)
    return Terms(loss + extras(model, output, clean, train), None, logits_of(output))


METHOD = Method(craft, minimise)
