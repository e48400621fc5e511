"""What the evaluation says of a small net, in figures: what changes them changes every table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
import torch

from components.attacks import CELLS, ThreatModel
from components.evaluation.curves import FACTORS, curves, standing_grid
from components.evaluation.gallery import gallery_of, shown_of
from components.evaluation.interventions import intervene
from components.evaluation.streams import health, stream_counts
from components.evaluation.suite import QUICK, Entry
from components.models import build_model


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested mappings and lists, by its path; None is -1, a text its length."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}/{key}")
    elif isinstance(value, str):
        yield name, float(len(value))
    elif isinstance(value, Sequence):
        for place, inner in enumerate(value):
            yield from numbers(inner, f"{name}/{place}")
    else:
        yield name, -1.0 if value is None else float(value)


def told(value: Any) -> dict[str, float]:
    return dict(numbers(value))


def columns(table: pa.Table) -> dict[str, float]:
    """Sum and sum by place of every column of numbers."""
    found = {"rows": float(table.num_rows)}
    for name in table.column_names:
        values = [v for _, v in numbers(table[name].to_pylist())]
        if name != "video":  # packed pictures, whose bytes are those of a version of WebP
            found[name] = sum(values)
            found[f"{name} in order"] = sum(i * v for i, v in enumerate(values)) / len(values)
    return found


@pytest.fixture
def some(clips):
    return clips.select(torch.arange(24))


def test_figures_of_the_streams(honest, some, threat, pinned):
    batches = [some.select(torch.arange(16)), some.select(torch.arange(16, 21))]
    counts = stream_counts(honest, batches, threat, steps=4, seed=1)
    pinned("streams", {**counts, **health(counts)}, rel=0.02)
    video = ThreatModel(rgb=threat.rgb)
    counts = stream_counts(honest, batches, video, steps=4, seed=1)
    pinned("streams rgb", {**counts, **health(counts, ("rgb",))}, rel=0.02)


def test_figures_of_the_curves(honest, some, threat, pinned):
    grids = [standing_grid(honest, some, threat, FACTORS, seed=1)] * 2
    pinned(
        "curves", told(curves(grids, 2 * some.size, threat, FACTORS, {"run": "honest"})), rel=0.02
    )


def test_figures_of_a_gallery(honest, some, threat, pinned):
    few = some.select(torch.arange(6))
    found = gallery_of(honest, few, shown_of(QUICK), threat, seed=1)
    pinned("gallery", columns(found.rows) | told(found.about), rel=0.02)


def test_figures_of_interventions(some, threat, pinned):
    torch.manual_seed(0)
    model = build_model({"num_classes": 4, "width": 0.25, "skeleton_frames": 4, "fusion": "amr"})
    with torch.no_grad():
        for parameter in model.stacked():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    entries = [Entry("pgd", "pgd", {"steps": 3, "rel_alpha": 0.5})]
    batches = [some.select(torch.arange(0, 12)), some.select(torch.arange(12, 24))]
    right = [model.eval()(*b[:3]).logits.argmax(1).detach() for b in batches]
    batches = [b._replace(label=label) for b, label in zip(batches, right, strict=True)]
    found = intervene(model, batches, threat, entries, seed=1)
    assert any(found["frozen"][cell]["n"] for cell in CELLS)
    pinned("interventions", told(found), rel=0.02)
