"""The last part of a run: a fusion's weights are fitted on clips that the streams have not seen.

Stacked generalisation (Wolpert 1992): how far each predictor is to be trusted is learned where the
predictors are not flattered by their own training clips. Here these are the validation clips, as
they are and under attack in every cell, by an attacker who sees through the weights being fitted.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from components.attacks import ThreatModel, pgd
from components.attacks.gradient import unwrap
from components.attacks.losses import margin_loss
from components.batch import Batch, logits_of
from components.config.train import TrainSection
from components.evaluation.scores import cells_of
from components.training.methods import InnerProblem, Method, Terms, attackable
from components.training.state import TrainState

PEAK_LR = 0.05
STEPS = 5
# Of the sigmoid that stands in for an error: a margin of one nat is all but decided.
STEEPNESS = 2.0


def stacked_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that `model` leaves to this part of the run; [] for most fusions."""
    own = getattr(unwrap(model), "stacked", None)
    return [] if own is None else own()


def epochs_of(model: nn.Module, train: TrainSection) -> int:
    """Epochs of this part: `train.stack_epochs`, or none where there is nothing to fit."""
    return train.stack_epochs if stacked_parameters(model) else 0


def choose_parameters(model: nn.Module, held_out: bool) -> None:
    """Let gradients reach the stacked parameters alone, or all others."""
    stacked = {id(p) for p in stacked_parameters(model)}
    for parameter in model.parameters():
        parameter.requires_grad_((id(parameter) in stacked) == held_out)


def begin(state: TrainState) -> None:
    """Go on from the weights that are deployed: the averaged ones, where there are any."""
    if state.average is not None:
        state.model.load_state_dict(state.average.state_dict())


def threat_of_step(threat: ThreatModel, step: int, natural: bool) -> ThreatModel:
    """What the attacker may touch in this step: nothing, then each cell, in turn."""
    allowed = ["clean", *cells_of(threat)]
    case = "clean" if natural else allowed[step % len(allowed)]
    return ThreatModel() if case == "clean" else threat.cell(case)


def lr(done: float) -> float:
    """The learning rate when the share `done` of this part is over: cosine down to 0."""
    return PEAK_LR * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def craft(problem: InnerProblem) -> Batch:
    """PGD on the margin of the fused prediction, or the clips themselves in a clean step."""
    if not problem.threat.budgets:
        return problem.clean
    with attackable(problem.module) as net:
        return pgd(
            net,
            problem.clean,
            problem.threat,
            seed=problem.seed,
            steps=STEPS,
            loss="margin",
            name="stacking",
        )


def minimise(model: nn.Module, clean: Batch, attacked: Batch, train: TrainSection) -> Terms:
    """A smooth error rate: sigmoid of the margin by which the best wrong class leads, per clip.

    Cross-entropy would be ruled by the clips that no weight can save; accuracy is what is wanted.
    """
    logits = logits_of(model(attacked.rgb, attacked.skeleton, attacked.present)).float()
    return Terms(torch.sigmoid(STEEPNESS * margin_loss(logits, clean.label)), logits, None)


def settings_of(train: TrainSection) -> TrainSection:
    """The settings of a step of this part: batches in one piece."""
    return replace(train, accumulate=1)


METHOD = Method(craft, minimise)
