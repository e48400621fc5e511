"""Robust accuracy of any model under a whole suite, in a notebook: no files, no Ray.

`pipelines.evaluate` runs the same functions, chunk by chunk on a cluster.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from components.attacks import CELLS, ThreatModel, frozen
from components.attacks.checked import looked_at
from components.batch import Batch, ModelOutput
from components.errors import UserError
from components.evaluation.cascade import ChunkResult, run_cascade
from components.evaluation.checks import Flag, check_model
from components.evaluation.outcome_checks import check_records
from components.evaluation.records import to_records
from components.evaluation.scores import cells_of, device_of
from components.evaluation.stream_checks import check_streams, streams_of
from components.evaluation.subset import Subset
from components.evaluation.suite import Entry, describe, entries_of, suite_hash
from components.evaluation.summary import Records, summarise
from components.inputs import check_labels, check_logits


@dataclass
class Chunk:
    """What is kept of some clips: their records, and the cost of each attack in each cell."""

    records: pa.Table
    costs: list[dict[str, Any]]


@dataclass
class Evaluation:
    """summary: the figures, as in `<model>.json`; records: a row per clip, cell and attack;
    results: all verdicts by batch, with the worst inputs per cell, when they were kept."""

    summary: dict[str, Any]
    records: pa.Table
    results: list[ChunkResult] = field(default_factory=list)


def evaluate_model(
    model: nn.Module,
    batches: Batch | Iterable[Batch],
    threat: ThreatModel,
    suite: str | Sequence[Entry] = "standard",
    *,
    name: str = "model",
    classes: Sequence[Any] | None = None,
    seed: int = 0,
    twin: nn.Module | None = None,
    checks: bool = True,
    keep: bool = False,
    unit: str = "metres",
) -> Evaluation:
    """Evaluate your own model under a fixed suite of attacks.

    model: any module called as `model(rgb, skeleton, present)` that returns logits [B, K] or a
        `ModelOutput`; wrap a net of one input in `components.attacks.SingleStream`. It takes raw
        inputs and normalises them itself, stays on its device, and is left as it was.
    batches: clips; each batch is attacked as one, so its size bounds the memory.
    threat: a modality whose budget is None is never touched, and its cells are left out.
    suite: "thin", "quick", "standard", or your own entries.
    classes: names by label for the tables; numbers when left out.
    twin: a model without AMR whose adversarial clips are tried on this one.
    checks: run the gradient-masking checks on a fixed subset of the rightly classified clips, see
        docs/flags.md.
    keep: keep the worst adversarial clips, for `components.evaluation.adversarial_set`.
    unit: of the joints and their budget; joints of any other unit than metres are not checked.
    Raises UserError for no clips, clips that are not what `Batch` promises (`components.inputs`), a
    model that returns no logits, an unknown suite, or labels for which there is no logit.
    """
    device = device_of(model)
    parts = [batches] if isinstance(batches, Batch) else batches
    entries: list[Entry] = []
    chunks: list[Chunk] = []
    results: list[ChunkResult] = []
    subset = Subset()
    outputs = 0
    for part in parts:
        batch = looked_at(part, threat, unit).to(device)
        if not chunks:
            has, outputs = model_outputs(model, batch)
            entries = entries_of(suite, has | ({"twin"} if twin is not None else set()))
        check_labels(batch.label, outputs)
        result = run_cascade(
            model, batch, entries, threat, seed=seed, keep=keep, twin=twin, exchange=True
        )
        chunks.append(chunk_of(result))
        results += [result] if keep else []
        subset.offer(batch, result.clean.scores.correct)
    if subset.clips is None:
        raise UserError("no clips to evaluate: `batches` was empty")
    flags = check_model(model, subset.clips, threat, seed=seed) if checks else []
    names = list(range(outputs)) if classes is None else list(classes)
    summary = assemble(
        chunks, entries, threat, classes=names, flags=flags, about={"model": name, "seed": seed}
    )
    return Evaluation(summary, pa.concat_tables([c.records for c in chunks]), results)


def model_outputs(model: nn.Module, clips: Batch) -> tuple[frozenset[str], int]:
    """What adaptive attacks can aim at ("weights", "aux"), and the number of logits."""
    one = clips.select(torch.zeros(1, dtype=torch.int64, device=clips.label.device))
    with frozen(model) as net, torch.no_grad():
        output = net(one.rgb, one.skeleton, one.present)
    has = set()
    if isinstance(output, ModelOutput):
        has = {part for part in ("weights", "aux") if getattr(output, part)}
    logits = output.logits if isinstance(output, ModelOutput) else output
    return frozenset(has), check_logits(logits, 1)


def chunk_of(result: ChunkResult) -> Chunk:
    """What is kept of a cascade's result."""
    clean = {"cell": "clean", "attack": "clean", "clips": result.clips.size, **result.clean.cost}
    costs = [
        {"cell": o.cell, "attack": o.entry.name, "clips": len(o.index), **o.run.cost}
        for o in result.outcomes
    ]
    return Chunk(to_records(result), [clean, *costs])


def assemble(
    chunks: Sequence[Chunk],
    entries: Sequence[Entry],
    threat: ThreatModel,
    *,
    classes: Sequence[Any],
    flags: Sequence[Flag],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary of one model. `about`: its name, the seed, fingerprints, anything to record."""
    cells = cells_of(threat, CELLS)
    records = pa.concat_tables([chunk.records for chunk in chunks])
    found = [*flags, *check_records(records, entries, cells), *check_streams(records)]
    return {
        **about,
        **summarise(records, entries, cells, classes),
        "streams": streams_of(Records(records)),
        "flags": found,
        "flagged": worst_status(found),
        "cost": total_costs(chunks),
        "threat": threat.as_dict(),
        "threat_fingerprint": threat.fingerprint(),
        "suite_hash": suite_hash(entries),
        "attacks": describe(entries),
    }


def worst_status(flags: Sequence[Flag]) -> str:
    """The worst that any check ended as: "fail", "warn", "too-few" or "pass", in this order."""
    seen = {found["status"] for found in flags}
    return next((status for status in ("fail", "warn", "too-few") if status in seen), "pass")


def total_costs(chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Clips attacked, passes (fill-ups included) and seconds by attack and cell, and in all."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    total = {"forward": 0.0, "backward": 0.0, "seconds": 0.0}
    for chunk in chunks:
        for row in chunk.costs:
            cell = table.setdefault(row["attack"], {}).setdefault(row["cell"], {})
            for key in ("clips", "forward", "backward", "seconds"):
                cell[key] = cell.get(key, 0) + row[key]
            for key in total:
                total[key] += row[key]
    return {"attacks": table, "total": total}
