"""Each rival fusion against its formula, computed here a second way, and its promises."""

import numpy as np
import pytest
import torch

from components.batch import ModelOutput
from components.models.fusions.exfmem import FeatureMemory
from components.models.fusions.fim import FIM
from components.models.fusions.minsim import similarity
from components.models.fusions.mmtm import MMTM

REAL = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def _maps() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 8, 2, 4, 5), torch.randn(3, 12, 2, 6, 7)


def test_mmtm_follows_its_equations_and_gates_both_persons() -> None:
    rgb, skeleton = _maps()
    fusion = MMTM(8, 12)
    out_rgb, out_skeleton = fusion(rgb, skeleton, REAL)
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


def test_fim_starts_as_the_identity_and_can_leave_it() -> None:
    rgb, skeleton = _maps()
    fusion = FIM(8, 12)
    out_rgb, out_skeleton = fusion(rgb, skeleton, REAL)
    assert torch.equal(out_rgb, rgb) and torch.equal(out_skeleton, skeleton)
    optimiser = torch.optim.SGD(fusion.parameters(), 1.0)
    (out_rgb.square().sum() + (out_skeleton * skeleton.sign()).sum()).backward()
    optimiser.step()
    assert not torch.allclose(fusion(rgb, skeleton, REAL)[0], rgb)


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
