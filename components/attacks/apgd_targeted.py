"""Targeted Auto-PGD (Croce & Hein 2020): towards each of the likeliest wrong classes in turn."""

from components.attacks.apgd import search
from components.attacks.best import Best
from components.attacks.gradient import Model, frozen, predict
from components.attacks.losses import fooled, margin, wrong_logits
from components.attacks.threat import ThreatModel
from components.batch import Batch


def apgd_targeted(
    model: Model,
    batch: Batch,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 100,
    n_targets: int = 9,
    n_restarts: int = 1,
    early_stop: bool = True,
    name: str = "apgd_t",
) -> Batch:
    """APGD on the targeted DLR loss towards the `n_targets` likeliest wrong classes.

    One clean forward ranks the classes. With K classes there are at most K - 1 targets, so nine
    need ten classes; with fewer, all wrong classes are tried. For the loss below four classes see
    `losses.dlr_targeted`. A clip that is fooled (or wrong to begin with) meets no further target.
    """
    region = threat.region(batch)
    with frozen(model) as net:
        logits = predict(net, batch, {})
        ranked = wrong_logits(logits, batch.label).argsort(1, descending=True)
        best = Best(region.clean, batch.label)
        best.done = fooled(logits, batch.label)
        for turn in range(min(n_targets, logits.shape[1] - 1)):
            open_ = (~best.done).nonzero().flatten()
            if open_.numel() == 0:
                break
            found = search(
                net,
                region.select(open_),
                margin,
                seed,
                steps,
                n_restarts,
                0.75,
                early_stop,
                name=f"{name}/{turn}",
                target=ranked[open_, turn],
            )
            best.merge(found, open_)
    return region.finish(best.adv)
