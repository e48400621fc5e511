"""Planted defences that only hide their gradients, and which flags they raise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from components.attacks import Budget, ThreatModel
from components.evaluation.checks import check_model
from components.evaluation.evaluate import evaluate_model
from components.evaluation.suite import Entry

SUITE = (
    Entry("fgsm", "fgsm", individual=True),
    Entry("pgd20", "pgd", {"steps": 20, "early_stop": True}, individual=True),
    Entry("square", "square", {"queries": 80}),
)


class Defence(nn.Module):
    """A net behind something that misleads attacks."""

    def __init__(self, model: nn.Module, answer: Callable) -> None:
        super().__init__()
        self.model, self.answer = model, answer

    def forward(self, rgb, skeleton, present):
        return self.answer(self.model, rgb, skeleton, present)


def quantised(model, rgb, skeleton, present):
    return model((rgb * 8).round() / 8, (skeleton * 6).round() / 6, present)


def detached(model, rgb, skeleton, present):
    return model(rgb, skeleton.detach(), present)


def softmax(model, rgb, skeleton, present):
    output = model(rgb, skeleton, present)
    return output._replace(logits=(20 * output.logits).softmax(1))


def random_layer(model, rgb, skeleton, present):
    noisy = rgb + 0.1 * torch.randn_like(rgb)
    return model(noisy, skeleton + 0.1 * torch.randn_like(skeleton), present)


def dead_stream(model, rgb, skeleton, present):
    output = model(torch.full_like(rgb, 0.5), skeleton, present)
    return output._replace(logits=output.aux["skeleton"])


def constant_weights(model, rgb, skeleton, present):
    output = model(rgb, skeleton, present)
    weights = torch.full_like(output.weights["logits"], 0.5)
    return output._replace(weights={"logits": weights})


def flags_of(model, clips, threat) -> dict[str, str]:
    summary = evaluate_model(model, clips, threat, SUITE).summary
    assert all(f["message"] for f in summary["flags"] if f["status"] != "pass")
    statuses = {f["check"]: f["status"] for f in summary["flags"]}
    assert summary["flagged"] == max(statuses.values(), key=["pass", "warn", "fail"].index)
    return statuses


@pytest.fixture(scope="module")
def honest_flags(honest, clips, threat):
    return flags_of(honest, clips, threat)


FIRES = {
    quantised: {"zero_gradients", "slopes", "black_box", "unbounded", "grows_with_eps"},
    detached: {"zero_gradients", "slopes"},
    softmax: {"softmax_output", "zero_gradients"},
    random_layer: {"random_output", "slopes", "iterative", "more_steps"},
    dead_stream: {"stream_collapsed"},
    constant_weights: {"attention_inert"},
}


@pytest.mark.parametrize("defence", FIRES, ids=lambda f: f.__name__)
def test_planted_defence_is_flagged(defence, honest, clips, threat):
    torch.manual_seed(1)
    # Wide enough that a quantised input still jumps to its next level.
    wide = ThreatModel(rgb=Budget("Linf", 20 / 255), skeleton=Budget("Linf", 0.1))
    found = flags_of(Defence(honest, defence), clips, wide if defence is quantised else threat)
    raised = {check for check, status in found.items() if status != "pass"}
    assert raised >= FIRES[defence], found


def test_every_check_has_a_planted_defence_that_fires_it(honest_flags):
    assert set(honest_flags) == set().union(*FIRES.values())


def test_honest_model_raises_nothing(honest_flags):
    assert set(honest_flags.values()) == {"pass"}


def test_a_net_that_never_reads_a_modality_hides_nothing(honest, clips, threat):
    def only_video(model, rgb, skeleton, present):
        return model(rgb, skeleton, present).aux["rgb"]

    flags = check_model(Defence(honest, only_video), clips, threat, seed=0)
    found = {f["check"]: f["status"] for f in flags}
    assert (found["zero_gradients"], found["slopes"]) == ("pass", "pass")


def test_every_flag_has_its_page(honest_flags):
    page = (Path(__file__).parents[2] / "docs" / "flags.md").read_text()
    for check in honest_flags:
        assert f"\n## {check.replace('_', '-')}\n" in page
