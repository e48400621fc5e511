"""The step: what it costs, what it must not touch, and that its parts add up."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from components.evaluation.cost import count_passes
from components.training.methods import METHODS
from components.training.step import NonFiniteLoss, TrainTarget, train_step
from tests._support.train import train_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trainee(fresh, section):
    def make(**changes) -> TrainTarget:
        state = fresh(section(**changes))
        for module in state.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        state.model.train()
        return TrainTarget(state.model, state.model, state.optimizer)

    return make


def parameters(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize(
    ("method", "forward"),
    [("natural", 1), ("pgd_at", 5), ("mart", 6), ("trades", 7), ("fgsm_rs", 2), ("nfgsm", 2)],
)
def test_a_step_makes_no_extra_pass(method, forward, trainee, clips, threat):
    """K + 1 passes; MART and TRADES train on two halves, and TRADES looks at the clean clips."""
    it = trainee()
    with count_passes(it.module) as passes:
        train_step(it, clips, threat, train_settings(method=method, steps=4), seed=0)
    assert passes.forward == forward * clips.size


def test_free_makes_one_pass_and_one_update_a_replay(trainee, clips, threat):
    it = trainee()
    with count_passes(it.module) as passes:
        train_step(it, clips, threat, train_settings(method="free", steps=4), seed=0)
    assert passes.forward == 4 * clips.size
    assert {int(slots["step"]) for slots in it.optimizer.state.values()} == {4}


@pytest.mark.parametrize("method", METHODS)
def test_modes_and_gradients_switches_are_left_as_they_were(method, trainee, clips, threat):
    it = trainee()
    it.module.heads.eval()
    train_step(it, clips, threat, train_settings(method=method, steps=2), seed=0)
    assert it.module.training and not it.module.heads.training
    assert all(p.requires_grad for p in it.module.parameters())
    assert not clips.rgb.requires_grad and clips.rgb.grad is None


def test_attack_moves_no_batch_statistics(trainee, clips, threat):
    """They move once, in the pass that trains, however many steps the attack takes."""
    counts = []
    for steps in (1, 6):
        it = trainee()
        train_step(it, clips, threat, train_settings(steps=steps), seed=0)
        norms = [m for m in it.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        counts.append({int(m.num_batches_tracked) for m in norms})
    assert counts == [{1}, {1}]


def freeze_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@pytest.mark.parametrize("method", ["natural", "pgd_at", "trades", "mart"])
def test_accumulation_is_the_same_step(method, trainee, clips, threat):
    results = []
    for accumulate in (1, 3):
        it = trainee(lr=0.1)
        freeze_statistics(it.module)
        recipe = train_settings(method=method, steps=2, accumulate=accumulate)
        result = train_step(it, clips, threat, recipe, seed=0)
        grads = torch.cat([p.grad.flatten() for p in it.module.parameters()])
        results.append((grads, float(result.loss), result.clips))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    assert results[0][2] == results[1][2] == clips.size


def test_shares_of_uneven_workers_add_up_to_the_whole(trainee, clips, threat, monkeypatch):
    """Mean over two workers of gradients divided by their share = gradient of the whole batch."""
    monkeypatch.setattr("components.training.step.GRAD_CLIP", torch.inf)
    recipe = train_settings(method="natural")
    parts = [torch.arange(0, 10), torch.arange(10, 24)]
    grads = []
    for rows, share in [(torch.arange(24), 24), (parts[0], 12), (parts[1], 12)]:
        it = trainee()
        freeze_statistics(it.module)
        train_step(it, clips.select(rows), threat, recipe, seed=0, loss_divisor=share)
        grads.append(torch.cat([p.grad.flatten() for p in it.module.parameters()]))
    assert torch.allclose(grads[0], (grads[1] + grads[2]) / 2, atol=1e-5)


def test_nonfinite_loss_stops_before_the_weights_are_touched(trainee, clips, threat):
    it = trainee()
    before = parameters(it.module)
    skeleton = clips.skeleton.clone()
    skeleton[3] = float("nan")
    broken = clips._replace(skeleton=skeleton)
    with pytest.raises(NonFiniteLoss) as caught:
        train_step(it, broken, threat, train_settings(method="natural"), seed=0)
    assert caught.value.clip_ids == clips.clip_id
    assert torch.equal(parameters(it.module), before)


def test_bf16_trains_and_keeps_float32_weights_and_examples(trainee, clips, threat):
    it = trainee()
    result = train_step(it, clips, threat, train_settings(steps=2, amp="bf16"), seed=0)
    assert torch.isfinite(result.loss)
    assert {p.dtype for p in it.module.parameters()} == {torch.float32}


def test_bf16_weight_gradients_are_those_of_fp32(clips, threat):
    """On CPU kernels once left parts of them unwritten, so they came from whatever lay there."""
    grads = []
    for amp in ("fp32", "bf16", "bf16"):
        torch.manual_seed(0)
        video = nn.Sequential(
            nn.Conv3d(3, 128, 1), nn.Conv3d(128, 128, (3, 1, 1), padding=(1, 0, 0))
        )
        module = PlainVideo(video)
        litter = [torch.full((n,), 1e30) for n in (49152, 100_000, 1_000_000)]
        del litter
        trainee = TrainTarget(module, module, torch.optim.SGD(module.parameters(), lr=0.0))
        train_step(trainee, clips, threat.cell("rgb"), train_settings(steps=1, amp=amp), seed=0)
        grads.append(video[1].weight.grad)
    for grad in grads[1:]:
        torch.testing.assert_close(
            grad, grads[0], rtol=0.1, atol=0.02 * float(grads[0].abs().max())
        )


class PlainVideo(nn.Module):
    """Two frames, as small video nets have at their end."""

    def __init__(self, video: nn.Module) -> None:
        super().__init__()
        self.video = video

    def forward(self, rgb, skeleton, present):
        rgb = rgb[:, :, :2].contiguous(memory_format=torch.channels_last_3d)
        return self.video(rgb).square().mean((2, 3, 4))[:, :3]


def test_early_stop_spends_less_and_still_trains(trainee, clips, threat):
    spent = []
    for early in (False, True):
        it = trainee()
        with count_passes(it.module) as passes:
            train_step(it, clips, threat, train_settings(steps=6, early_stop=early), seed=0)
        spent.append(passes.forward)
    assert spent[1] < spent[0]


def test_the_step_needs_torch_and_numpy_alone():
    code = (
        "import sys, components.training.step; "
        "heavy = {'ray', 'pydantic', 'pyarrow', 'yaml', 'av', 'mlflow', 'scipy', 'safetensors'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
