"""Each fusion against its formula, computed here a second way, and against what it promises."""

import math

import numpy as np
import pytest
import torch

from components.batch import ModelOutput
from components.models.amr import StageReweighter, floored_softmax
from components.models.fim import FIM
from components.models.memory import FeatureMemory, similarity
from components.models.mmtm import MMTM
from components.models.pooling import person_mean
from components.models.reweight import LogitReweighter, imbalance, mutual, statistics

REAL = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def _maps() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 8, 2, 4, 5), torch.randn(3, 12, 2, 6, 7)


def test_mmtm_follows_its_equations_and_gates_both_persons() -> None:
    rgb, skeleton = _maps()
    fusion = MMTM(8, 12)
    out_rgb, out_skeleton, weights = fusion(rgb, skeleton, REAL)
    assert weights is None
    value = {k: v.detach().double().numpy() for k, v in fusion.state_dict().items()}
    assert value["squeeze.weight"].shape == (5, 20)
    for b in range(3):
        s_v = rgb[b].double().numpy().mean((1, 2, 3))
        persons = [m for m in (0, 1) if REAL[b, m] > 0]
        s_k = skeleton[b, :, persons].double().numpy().mean((1, 2, 3))
        z = value["squeeze.weight"] @ np.concatenate([s_v, s_k]) + value["squeeze.bias"]
        z = np.maximum(z, 0)
        for name, before, after in (
            ("rgb_gate", rgb[b], out_rgb[b]),
            ("skeleton_gate", skeleton[b], out_skeleton[b]),
        ):
            gates = 2 / (1 + np.exp(-(value[f"{name}.weight"] @ z + value[f"{name}.bias"])))
            expected = before.double() * torch.from_numpy(gates)[:, None, None, None]
            assert torch.allclose(after.double(), expected, atol=1e-5)


@pytest.mark.parametrize("make", [FIM, StageReweighter], ids=["fim", "amr"])
def test_starts_as_the_identity_and_can_leave_it(make) -> None:
    rgb, skeleton = _maps()
    fusion = make(8, 12)
    out_rgb, out_skeleton, weights = fusion(rgb, skeleton, REAL)
    assert torch.equal(out_rgb, rgb) and torch.equal(out_skeleton, skeleton)
    if weights is not None:
        assert torch.equal(weights, torch.full((3, 4, 2), 0.5))
    optimiser = torch.optim.SGD(fusion.parameters(), 1.0)
    (out_rgb.square().sum() + (out_skeleton * skeleton.sign()).sum()).backward()
    optimiser.step()
    assert not torch.allclose(fusion(rgb, skeleton, REAL)[0], rgb)


def test_amr_scales_each_channel_group_by_twice_its_weight_within_the_floor() -> None:
    rgb, skeleton = _maps()
    fusion = StageReweighter(8, 12, heads=4, floor=0.2, gates=False, temperature=0.01)
    torch.nn.init.normal_(fusion.attention.query.weight, std=100.0)
    out_rgb, out_skeleton, weights = fusion(rgb, skeleton, REAL)
    assert weights.min() >= 0.2 - 1e-6 and weights.max() <= 0.8 + 1e-6
    assert weights.max() > 0.79 and torch.allclose(weights.sum(-1), torch.ones(3, 4))
    for group in range(4):
        channels = slice(2 * group, 2 * group + 2)
        scale = 2 * weights[:, group, 0, None, None, None, None]
        assert torch.allclose(out_rgb[:, channels], rgb[:, channels] * scale)
        channels = slice(3 * group, 3 * group + 3)
        scale = 2 * weights[:, group, 1, None, None, None, None]
        assert torch.allclose(out_skeleton[:, channels], skeleton[:, channels] * scale)


def test_amr_attends_by_scaled_dot_products() -> None:
    rgb, skeleton = _maps()
    fusion = StageReweighter(8, 12, heads=2, width=4, temperature=0.7, floor=0.1)
    torch.nn.init.normal_(fusion.attention.query.weight)
    weights = fusion(rgb, skeleton, REAL)[2]
    pooled = [rgb.mean((2, 3, 4)), person_mean(skeleton, REAL)]
    tokens = []
    for p, token in zip(pooled, fusion.tokens, strict=True):
        centred = (p - p.mean(1, keepdim=True)) / (p.var(1, False, keepdim=True) + 1e-5).sqrt()
        tokens.append(token[1](centred))
    query = fusion.attention.query(torch.relu(fusion.context(torch.cat(tokens, 1))))
    for head in (0, 1):
        part = slice(2 * head, 2 * head + 2)
        a, b = ((query[:, part] * t[:, part]).sum(1) / math.sqrt(2) / 0.7 for t in tokens)
        expected = 0.1 + 0.8 * torch.sigmoid(a - b)
        assert torch.allclose(weights[:, head, 0], expected, atol=1e-6)


def test_detached_weights_pass_no_gradient_to_the_features_they_come_from() -> None:
    rgb, skeleton = _maps()
    for detach in (False, True):
        fusion = StageReweighter(8, 12, detach=detach)
        torch.nn.init.normal_(fusion.attention.query.weight)
        rgb_in = rgb.clone().requires_grad_()
        weights = fusion(rgb_in, skeleton, REAL)[2]
        reached = bool(
            torch.autograd.grad(weights[..., 0].sum(), rgb_in, allow_unused=True)[0] is not None
        )
        assert reached is not detach
        weights = fusion.eval()(rgb_in, skeleton, REAL)[2]  # an attacker sees the whole gradient
        assert torch.autograd.grad(weights[..., 0].sum(), rgb_in)[0].abs().sum() > 0


@pytest.mark.parametrize(
    "knobs",
    [{}, {"evidence": "features"}, {"evidence": "both", "per_class": True}, {"detach": True}],
)
def test_logit_reweighting_starts_as_the_mean_and_keeps_its_floor(knobs: dict) -> None:
    torch.manual_seed(0)
    merge = LogitReweighter(6, 7, 5, floor=0.2, temperature=0.1, **knobs)
    features, logits = (torch.randn(4, 6), torch.randn(4, 7)), torch.randn(2, 4, 5) * 4
    out, weights = merge(*features, *logits)
    assert torch.allclose(out, logits.log_softmax(-1).mean(0), atol=1e-6)
    assert torch.equal(weights, torch.full_like(weights, 0.5))
    torch.nn.init.normal_(merge.attention.query.weight, std=50.0)
    out, weights = merge(*features, *logits * 1000)
    assert torch.isfinite(out).all()
    assert weights.min() >= 0.2 - 1e-6 and torch.allclose(weights.sum(-1), torch.ones(()))


def test_doubt_bounds_how_far_one_modality_can_veto_a_class() -> None:
    sure = torch.tensor([[1000.0, 0.0, 0.0, 0.0]])
    torch.manual_seed(0)
    merge = LogitReweighter(2, 2, 4, doubt=0.1)
    out, weights = merge(torch.zeros(1, 2), torch.zeros(1, 2), sure, sure.flip(1))
    assert torch.allclose(weights, torch.full((1, 2), 0.5))
    # Half the log of 0.9 + 0.1 / 4 and half the log of 0.1 / 4 for either favourite.
    expected = (math.log(0.925) + math.log(0.025)) / 2
    assert out[0, 0].item() == pytest.approx(expected, abs=1e-5)
    assert out[0, 1].item() == pytest.approx(math.log(0.025), abs=1e-5)


def test_lean_moves_from_mean_to_the_less_convinced_modality() -> None:
    merge = LogitReweighter(2, 2, 3, per_class=True, floor=0.0)
    logits = torch.randn(2, 5, 3) * 3
    merge.lean.data.fill_(-1e6)
    out, _ = merge(torch.zeros(5, 2), torch.zeros(5, 2), *logits)
    assert torch.allclose(out, logits.log_softmax(-1).amin(0), atol=1e-4)


def test_statistics_name_no_class() -> None:
    log_p = torch.randn(4, 6, 2).log_softmax(1)
    assert torch.allclose(statistics(log_p), statistics(log_p[:, torch.randperm(6)]), atol=1e-6)
    p = log_p.exp()
    found = statistics(log_p)[0]
    favourite = p[0, :, 1].argmax()
    assert found[0, 3].item() == pytest.approx(p[0, favourite, 0].item())
    assert found[0, 4].item() == pytest.approx((p[0, :, 0] * p[0, :, 1]).sum().item())


def test_stream_drop_leaves_one_modality_in_training_only() -> None:
    torch.manual_seed(0)
    merge = LogitReweighter(2, 2, 3, stream_drop=0.5, floor=0.3)
    features, logits = (torch.zeros(400, 2), torch.zeros(400, 2)), torch.randn(2, 400, 3)
    weights = merge(*features, *logits)[1]
    alone = (weights == 1).any(1)
    assert 0.4 < alone.float().mean() < 0.6
    assert 0.35 < (weights[alone][:, 0] == 1).float().mean() < 0.65
    assert (merge.eval()(*features, *logits)[1] == 0.5).all()


def test_share_moves_the_weights_of_the_video_and_must_leave_room_for_both() -> None:
    torch.manual_seed(0)
    features, logits = (torch.randn(60, 2), torch.randn(60, 2)), torch.randn(2, 60, 3)
    merge = LogitReweighter(2, 2, 3, floor=0.4, share=0.6, evidence="features").eval()
    torch.nn.init.normal_(merge.attention.query.weight, std=100.0)
    weights = merge(*features, *logits)[1]
    assert torch.allclose(weights.sum(1), torch.ones(60))
    assert torch.allclose(merge.train()(*features, *logits)[1] + torch.tensor([0.1, -0.1]), weights)
    assert 0.5 - 1e-6 <= weights[:, 0].min() < weights[:, 0].max() <= 0.7 + 1e-6
    with pytest.raises(ValueError, match="share"):
        LogitReweighter(2, 2, 3, floor=0.1, share=0.7)


def test_floored_softmax_and_imbalance() -> None:
    weights = floored_softmax(torch.tensor([[100.0, -100.0], [0.0, 0.0]]), 1.0, 0.05)
    assert torch.allclose(weights, torch.tensor([[0.95, 0.05], [0.5, 0.5]]))
    even = ModelOutput(torch.zeros(1), {}, {"a": torch.tensor([[0.9, 0.1], [0.1, 0.9]])}, {})
    assert imbalance(even).item() == pytest.approx(0.0, abs=1e-6)
    tilted = even._replace(weights={"a": torch.tensor([[0.9, 0.1]])})
    expected = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert imbalance(tilted, 2.0).item() == pytest.approx(2 * expected, abs=1e-5)


def test_the_joint_prediction_teaches_the_heads_and_learns_nothing_itself() -> None:
    torch.manual_seed(0)
    joint, rgb, skeleton = (torch.randn(5, 3, requires_grad=True) for _ in range(3))
    output = ModelOutput(joint, {"rgb": rgb, "skeleton": skeleton}, {}, {})
    p = joint.detach().softmax(1).numpy()
    expected = 0.0
    for head in (rgb, skeleton):
        q = head.detach().softmax(1).numpy()
        expected += (p * np.log(p / q)).sum(1).mean() / 2
    loss = mutual(output, 3.0)
    assert loss.item() == pytest.approx(3 * expected, rel=1e-5)
    loss.backward()
    assert joint.grad is None and rgb.grad.abs().sum() > 0 and skeleton.grad.abs().sum() > 0
    assert mutual(output._replace(aux={})).item() == 0.0


def test_minsim_is_the_mean_cosine() -> None:
    features = {"rgb": torch.randn(5, 4), "skeleton": torch.randn(5, 4)}
    a, b = (f.numpy() for f in features.values())
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    out = ModelOutput(torch.zeros(5, 2), {}, {}, features)
    assert similarity(out).item() == pytest.approx(cosines.mean(), abs=1e-6)


def test_sparse_code_solves_its_problem() -> None:
    """Long ISTA against coordinate descent in numpy, and the optimality conditions."""
    torch.manual_seed(0)
    memory = FeatureMemory(6, atoms=9, sparsity=0.1, steps=4000)
    torch.nn.init.normal_(memory.dictionary)
    feature, atoms = torch.randn(3, 6), memory.atoms().detach()
    code = memory.code(feature, atoms).detach().double().numpy()
    d = atoms.double().numpy()
    for b in range(3):
        f, a = feature[b].double().numpy(), np.zeros(9)
        for _ in range(3000):
            for j in range(9):
                rest = d[:, j] @ (f - d @ a + d[:, j] * a[j])
                a[j] = np.sign(rest) * max(abs(rest) - 0.1, 0)

        def cost(x: np.ndarray, f: np.ndarray = f) -> float:
            return 0.5 * ((f - d @ x) ** 2).sum() + 0.1 * np.abs(x).sum()

        assert cost(code[b]) == pytest.approx(cost(a), abs=1e-4)
        match = d.T @ (f - d @ code[b])
        assert np.abs(match).max() <= 0.1 + 1e-3
        used = np.abs(code[b]) > 1e-3
        assert used.any() and np.allclose(match[used], 0.1 * np.sign(code[b][used]), atol=1e-3)


def test_memory_mixes_half_a_reconstruction_and_learns_only_from_its_loss() -> None:
    torch.manual_seed(0)
    memory = FeatureMemory(6, atoms=9)
    feature = torch.rand(3, 6, requires_grad=True)
    atoms = memory.atoms().detach()
    rebuilt = memory.code(feature, atoms) @ atoms.T
    out = memory(feature)
    assert torch.allclose(out, 0.5 * rebuilt + 0.5 * feature)
    out.sum().backward()
    assert memory.dictionary.grad is None and feature.grad is not None
    feature.grad = None
    before = memory.loss(feature)
    before.backward()
    assert feature.grad is None
    memory.dictionary.data -= 0.5 * memory.dictionary.grad
    assert memory.loss(feature) < before
