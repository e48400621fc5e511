"""What each fusion is made of, by name: modules between stages, a merge at the end, penalties."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from components.batch import ModelOutput
from components.models.amr import StageReweighter
from components.models.fim import FIM
from components.models.heads import LinearHeads, PrototypeHeads
from components.models.memory import CommonSpace, FeatureMemory, MemoryMerge, similarity
from components.models.merge import ConcatMerge, LateMerge
from components.models.mmtm import MMTM
from components.models.reweight import LogitReweighter, imbalance, mutual

Pair = tuple[int, int]  # (video, skeleton): channels of two maps, or lengths of two features


class Parts(NamedTuple):
    """A fusion, ready for `TwoStream`.

    features: lengths of the two feature vectors that the merge and the heads see
    fusions: one module per join, or none
    needs_heads: whether the merge takes the per-modality logits
    heads: (features of the two modalities, classes) -> the per-modality classifiers
    dropout: of the features, in place of the model's own; None = the model's own
    """

    merge: nn.Module
    features: Pair
    fusions: Sequence[nn.Module] = ()
    common: nn.Module | None = None
    penalties: Sequence[Callable[[ModelOutput], Tensor]] = ()
    needs_heads: bool = True
    heads: Callable[[int, int, int], nn.Module] = LinearHeads
    dropout: float | None = None


def _late(joins: Sequence[Pair], features: Pair, num_classes: int) -> Parts:
    return Parts(LateMerge(), features)


def _concat(joins: Sequence[Pair], features: Pair, num_classes: int) -> Parts:
    return Parts(ConcatMerge(*features, num_classes), features, needs_heads=False)


def _staged(
    module: Callable[[int, int], nn.Module],
    joins: Sequence[Pair],
    features: Pair,
    num_classes: int,
) -> Parts:
    return Parts(LateMerge(), features, [module(*channels) for channels in joins])


def _tian_and_xu(
    joins: Sequence[Pair], features: Pair, num_classes: int, *, minsim: bool, memory: bool
) -> Parts:
    width = min(features)
    classifier = ConcatMerge(width, width, num_classes)
    merge: nn.Module = classifier
    penalties: list[Callable[[ModelOutput], Tensor]] = [similarity] if minsim else []
    if memory:
        merge = with_memory = MemoryMerge(FeatureMemory(width), FeatureMemory(width), classifier)
        penalties.append(with_memory.loss)
    common = CommonSpace(*features, width)
    return Parts(merge, (width, width), (), common, penalties, needs_heads=False)


def amr_parts(
    joins: Sequence[Pair],
    features: Pair,
    num_classes: int,
    *,
    heads: int = 4,
    width: int = 8,
    temperature: float = 1.0,
    floor: float = 0.35,
    stage_weights: bool = False,
    stage_gates: bool = False,
    logits: str = "attention",
    evidence: str = "logits",
    per_class: bool = False,
    logit_floor: float = 0.4,
    doubt: float = 0.0,
    detach: bool = False,
    stream_drop: float = 0.0,
    balance: float = 0.0,
    distil: float = 1.0,
    share: float = 0.5,
    prototype_scale: float = 12.0,
    dropout: float = 0.0,
    time_parts: int = 1,
) -> Parts:
    """AMR from its settings.

    stage_weights, stage_gates: modality weights and channel gates between the maps; neither = no
        modules at the stages. logits: "attention" re-weights the two predictions, "mean" does not.
    prototype_scale: that of `PrototypeHeads`; 0 = linear heads.
    dropout: of the features before the heads, in place of the model's. Heads that go by direction
        are better without: on held-out subjects the dropped entries cost clean accuracy.
    time_parts: of which the features consist.
    balance, distil: weights of the losses `imbalance` and `mutual`; the latter needs heads.
    The rest are the keywords of `StageReweighter` and `LogitReweighter` (`logit_floor` is the
    latter's floor); `docs/amr.md` explains them.
    """
    if logits not in ("attention", "mean"):
        raise ValueError(f"model.amr.logits={logits!r}: choose attention or mean")
    if balance and logits == "mean" and not (stage_weights and joins):
        raise ValueError(
            "model.amr.balance needs weights to act on: set model.amr.logits=attention"
        )
    stages = [
        StageReweighter(
            *channels,
            heads=heads,
            width=width,
            temperature=temperature,
            floor=floor,
            weights=stage_weights,
            gates=stage_gates,
            detach=detach,
        )
        for channels in joins
        if stage_weights or stage_gates
    ]
    merge: nn.Module = LateMerge()
    if logits == "attention":
        merge = LogitReweighter(
            *features,
            num_classes,
            evidence=evidence,
            per_class=per_class,
            width=width,
            temperature=temperature,
            floor=logit_floor,
            doubt=doubt,
            detach=detach,
            stream_drop=stream_drop,
            share=share,
        )
    penalties = [
        partial(penalty, factor=factor)
        for penalty, factor in ((imbalance, balance), (mutual, distil))
        if factor
    ]
    classifiers: Callable[[int, int, int], nn.Module] = LinearHeads
    if prototype_scale:
        classifiers = partial(PrototypeHeads, scale=prototype_scale, parts=time_parts)
    return Parts(merge, features, stages, penalties=penalties, heads=classifiers, dropout=dropout)


FUSIONS: dict[str, Callable[..., Parts]] = {
    "late": _late,
    "concat": _concat,
    "mmtm": partial(_staged, MMTM),
    "minsim": partial(_tian_and_xu, minsim=True, memory=False),
    "exfmem": partial(_tian_and_xu, minsim=False, memory=True),
    "minsim_exfmem": partial(_tian_and_xu, minsim=True, memory=True),
    "fim": partial(_staged, FIM),
    "amr": amr_parts,
}
# Where a fusion that sits between stages attaches when the settings leave it open.
OWN_STAGES: dict[str, tuple[int, ...]] = {"mmtm": (-2, -1), "fim": (-2, -1), "amr": (-1,)}
# Into how many parts of time the features are pooled when the settings leave it open.
OWN_TIME_PARTS: dict[str, int] = {"amr": 2}
