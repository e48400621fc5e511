"""How each method crafts its examples: the points it asks about, step by step."""

import pytest
import torch
import torch.nn.functional as F

from components.attacks import frozen
from components.attacks.pgd import start_seeds
from components.training.methods import METHODS, InnerProblem
from tests._support.train import train_settings

EPS = {"rgb": 8 / 255, "skeleton": 0.05}


def asked(fresh, section, clips, threat, method: str, rollbacks: int = 0, **changes):
    """(model, points asked about and the example found at the end)."""
    model, seen = fresh(section()).model, []
    handle = model.register_forward_pre_hook(
        lambda module, given: seen.append({"rgb": given[0].detach().clone(),
                                           "skeleton": given[1].detach().clone()})
    )  # fmt: skip
    train = train_settings(method=method, **changes)
    found = METHODS[method].craft(InnerProblem(model, clips, threat, train, 3, rollbacks))
    handle.remove()
    return model, [*seen, {"rgb": found.rgb.detach(), "skeleton": found.skeleton.detach()}]


def slopes(model, x, clips, loss) -> dict[str, torch.Tensor]:
    leaves = {m: t.clone().requires_grad_(True) for m, t in x.items()}
    with frozen(model) as net:
        logits = net(leaves["rgb"], leaves["skeleton"], clips.present).logits
        grads = torch.autograd.grad(loss(logits), list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def entropy(clips):
    return lambda logits: F.cross_entropy(logits, clips.label, reduction="sum")


def follow(model, points, clips, loss, share: float, reach: float) -> None:
    """Each point is the one before, `share` eps along the sign, within `reach` eps and bounds."""
    for before, after in zip(points, points[1:], strict=False):
        for m, slope in slopes(model, before, clips, loss).items():
            clean = getattr(clips, m)
            step = before[m] + share * EPS[m] * slope.sign()
            step = step.clamp(clean - reach * EPS[m], clean + reach * EPS[m])
            step = step.clamp(0, 1) if m == "rgb" else step
            same = (after[m] - step).abs() < 1e-3 * EPS[m]
            if m == "skeleton":
                assert torch.equal(after[m][..., 1], clean[..., 1])  # nobody is there
                same = same[..., 0]
            assert float(same.float().mean()) > 0.985, m


def same_start(point, threat, clips) -> None:
    """Where runs of every version start an epoch's attack; a resumed one must as well."""
    start = threat.random_start(clips, start_seeds(threat.region(clips), 3, "train"))
    assert torch.equal(point["rgb"], start[0]) and torch.equal(point["skeleton"], start[1])


CASES = [
    ("pgd_at", 0, {"steps": 4}, 2.5 / 4, 4),
    ("pgd_at", 1, {"steps": 2}, 2.5 / 4, 4),
    ("pgd_at", 0, {"steps": 3, "rel_alpha": 0.2}, 0.2, 3),
    ("mart", 0, {"steps": 2}, 2.5 / 2, 2),
    ("fgsm_rs", 0, {"steps": 7}, 1.25, 1),
    ("fgsm_rs", 0, {"rel_alpha": 0.7}, 0.7, 1),
    ("fgsm_rs", 1, {}, 1.25, 2),
    ("fgsm_rs", 2, {}, 0.625, 4),
    ("nfgsm", 1, {"steps": 7}, 1.25, 2),
    ("nfgsm", 2, {"steps": 7}, 0.625, 4),
]


@pytest.mark.parametrize(("method", "rollbacks", "changes", "share", "steps"), CASES, ids=str)
def test_methods_climb_by_their_own_steps(
    method, rollbacks, changes, share, steps, fresh, section, clips, threat
) -> None:
    model, points = asked(fresh, section, clips, threat, method, rollbacks, **changes)
    assert len(points) == steps + 1
    same_start(points[0], threat, clips)
    start = (points[0]["skeleton"] - clips.skeleton)[..., 0] / EPS["skeleton"]
    assert 0.9 < float(start.abs().max()) < 1.001 and abs(float(start.mean())) < 0.05
    follow(model, points, clips, entropy(clips), share, 1.0)


@pytest.mark.parametrize(("changes", "share"), [({}, 1.0), ({"rel_alpha": 0.5}, 0.5)])
def test_nfgsm_steps_from_noise_twice_as_wide(
    changes, share, fresh, section, clips, threat
) -> None:
    model, points = asked(fresh, section, clips, threat, "nfgsm", **changes)
    same_start(points[0], threat.scaled(2, 2), clips)
    assert len(points) == 2
    start = (points[0]["skeleton"] - clips.skeleton)[..., 0] / EPS["skeleton"]
    assert 1.9 < float(start.abs().max()) < 2.001
    assert float(start.std()) == pytest.approx(2 / 3**0.5, rel=0.03)
    follow(model, points, clips, entropy(clips), share, 2 + share)


def test_trades_climbs_the_divergence_from_the_clean_prediction(
    fresh, section, clips, threat
) -> None:
    model, points = asked(fresh, section, clips, threat, "trades", steps=3)
    same_start(points[1], threat, clips)
    assert torch.equal(points[0]["rgb"], clips.rgb) and len(points) == 5
    with frozen(model) as net, torch.no_grad():
        p = net(*clips[:3]).logits.softmax(1)

    def divergence(logits: torch.Tensor) -> torch.Tensor:
        return (p * (p.log() - logits.log_softmax(1))).sum()

    follow(model, points[1:], clips, divergence, 2.5 / 3, 1.0)


@pytest.mark.parametrize(("changes", "share"), [({}, 1.0), ({"rel_alpha": 0.3}, 0.3)])
def test_free_starts_at_random_and_moves_along_the_gradient_left_in_the_inputs(
    changes, share, fresh, section, clips, threat
) -> None:
    model, (first,) = asked(fresh, section, clips, threat, "free", **changes)
    same_start(first, threat, clips)
    start = (first["skeleton"] - clips.skeleton)[..., 0] / EPS["skeleton"]
    assert 0.9 < float(start.abs().max()) < 1.001
    train = train_settings(method="free", **changes)
    grads = slopes(model, first, clips, entropy(clips))
    previous = clips._replace(**{m: x.clone().requires_grad_(True) for m, x in first.items()})
    for m, grad in grads.items():
        getattr(previous, m).grad = grad.clone()
    problem = InnerProblem(model, clips, threat, train, 3, 0, previous)
    second = METHODS["free"].craft(problem)
    assert second.rgb.requires_grad and second.skeleton.requires_grad
    points = [first, {"rgb": second.rgb.detach(), "skeleton": second.skeleton.detach()}]
    follow(model, points, clips, entropy(clips), share, 1.0)
