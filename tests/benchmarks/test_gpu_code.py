"""What the two benchmarks do with --gpu runs here at toy size, so that it does not rot unseen."""

import importlib
import math

import pytest
import torch

from benchmarks import attack_step

TOY = ["--gpu", "--toy", "--steps", "2", "--repeats", "2"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_step_over_its_floor_and_its_share_of_the_peak():
    result = attack_step.run([*TOY, "--warmup", "1"])
    assert result.notes.startswith("PGD-2 training step") and "R(2+1)D-18 + HCN" in result.notes
    assert result.unit == "seconds a step" and 0 < result.ratio < 10
    share = result.details["share of measured matrix peak"]
    assert math.isfinite(share) and 0 < share
    assert share == pytest.approx(
        result.details["TFLOP/s reached"] / result.details["TFLOP/s of a large matmul"]
    )


def test_the_step_beside_the_peers():
    for peer in ("torchattacks", "art"):
        pytest.importorskip(peer)
    result = importlib.import_module("benchmarks.attack_step_peers").run([*TOY, "--batch", "4"])
    assert result.unit == "seconds a step" and 0 < result.ratio < 100
    losses = result.details["adversarial loss reached"]
    assert losses["torchattacks"] == pytest.approx(losses["ours"], rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["attack_step", "attack_step_peers"])
def test_without_a_gpu_it_says_so(name):
    with pytest.raises(SystemExit, match=f"{name} --gpu: torch sees no GPU"):
        importlib.import_module(f"benchmarks.{name}").run(["--gpu"])
