"""Passes of the cascade against attacking every clip with every attack to its end.

Both must give the same verdict for every clip, cell and model, or the ratio counts for nothing.
Models come from `--artifacts FOLDER` (train/*/best and shards, as the stages leave them), with the
data settings their checkpoints name; without it two toy nets are trained on the spot, one naturally
and one adversarially, so that the extremes are both there.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._bench import Result
from components.attacks import ATTACKS, Budget, ThreatModel
from components.batch import Batch
from components.checkpoint import load_model
from components.config import from_older
from components.datasets import ClipDataset, select_split
from components.evaluation.cascade import ChunkResult, run_cascade
from components.evaluation.evaluate import model_outputs
from components.evaluation.subset import rank
from components.evaluation.suite import Entry, entries_of
from components.models import build_model
from components.shards import ShardSet

EXPLICIT = True  # minutes: the exhaustive side spares nothing
STOPS_EARLY = ("pgd", "apgd_ce", "apgd_t", "square")
THREAT = ThreatModel(rgb=Budget("Linf", 8 / 255), skeleton=Budget("Linf", 0.05))


def run(args: list[str]) -> Result:
    """Passes of both sides over all models; the ratio is cascade / exhaustive."""
    parser = argparse.ArgumentParser(prog="eval_cascade")
    parser.add_argument("--artifacts", type=Path, help="folder with train/*/best and shards")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--suite", default="standard")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = trained(options.artifacts, options.clips) if options.artifacts else toys(options.clips)
    models: dict[str, Any] = {}
    identical = True
    for name, model, clips in found:
        entries = entries_of(options.suite, model_outputs(model, clips)[0])
        cascade = run_cascade(model, clips, entries, THREAT, seed=0)
        full = run_cascade(model, clips, to_the_end(entries), THREAT, seed=0, exhaustive=True)
        differ = sum(
            int((cascade.standing[cell] != full.standing[cell]).sum()) for cell in full.standing
        )
        identical &= differ == 0
        models[name] = {
            "clean_acc": share(cascade.clean.scores.correct),
            "worst": {cell: share(left) for cell, left in cascade.standing.items()},
            "verdicts_that_differ": differ,
            "cascade": cost(cascade),
            "exhaustive": cost(full),
            "ratio": passes(cascade) / passes(full),
        }
    sides = {
        side: {
            "passes": sum(m[side]["passes"] for m in models.values()),
            "seconds": sum(m[side]["seconds"] for m in models.values()),
        }
        for side in ("cascade", "exhaustive")
    }
    ratio = sides["cascade"]["passes"] / sides["exhaustive"]["passes"]
    data = str(options.artifacts) if options.artifacts else "toy clips"
    notes = f"suite {options.suite}, {options.clips} clips of {data}, models {', '.join(models)}"
    if not identical:
        ratio, notes = 1.0, f"VERDICTS DIFFER, so nothing is saved; {notes}"
    return Result(
        "eval_cascade", ratio, 0.5, "<=", sides, unit="passes", notes=notes,
        details={"identical": identical, "models": models},
    )  # fmt: skip


def to_the_end(entries: Sequence[Entry]) -> list[Entry]:
    """The same attacks without leaving fooled clips out on the way."""
    return [
        replace(entry, parameters={**entry.parameters, "early_stop": False})
        if entry.attack in STOPS_EARLY
        else entry
        for entry in entries
    ]


def passes(result: ChunkResult) -> float:
    """Clips forward plus clips backward, fill-ups included."""
    return sum(o.run.cost["forward"] + o.run.cost["backward"] for o in result.outcomes)


def cost(result: ChunkResult) -> dict[str, float]:
    """Passes and seconds of all attacks."""
    return {
        "passes": passes(result),
        "seconds": sum(o.run.cost["seconds"] for o in result.outcomes),
    }


def share(verdicts: Tensor) -> float:
    """Part of the clips that are right."""
    return float(verdicts.float().mean())


def trained_options(name: str, clips: int) -> argparse.ArgumentParser:
    """Words of a benchmark on trained models: which of them, how many clips, which suite."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--artifacts", type=Path, required=True, help="has train/*/best and shards")
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--runs", default="", help="a comma list, e.g. amr-s0,late-s0; empty = all")
    return parser


def trained(artifacts: Path, count: int, runs: str = "") -> Iterator[tuple[str, nn.Module, Batch]]:
    """(name, model, test clips) of every checkpoint under `artifacts/train`, or of `runs`.

    ValueError when there is none, or not all of those that are named.
    """
    folders = sorted(artifacts.glob("train/*/best"))
    if not folders:
        raise ValueError(f"no checkpoint under {artifacts}/train; train a model first")
    if runs:
        there = {folder.parent.name: folder for folder in folders}
        if missing := set(runs.split(",")) - there.keys():
            raise ValueError(f"no run {', '.join(sorted(missing))}; there are: {', '.join(there)}")
        folders = [there[run] for run in runs.split(",")]
    shards = ShardSet.open(artifacts / "shards")
    for folder in folders:
        model, about = load_model(folder)
        split = select_split(shards, from_older({"data": about["data"]}, str(folder)).data)
        rows = sorted(split.test.tolist(), key=lambda row: rank(shards.clip_ids[row]))[:count]
        clips = ClipDataset.for_model(shards, rows, about["classes"], about["model"])
        yield folder.parent.name, model, clips.batch(range(len(clips)))


def toys(count: int) -> Iterator[tuple[str, nn.Module, Batch]]:
    """Two small nets on clips whose class shows in both streams, under noise."""
    config = {
        "fusion": "concat", "width": 0.5, "dropout": 0.0, "skeleton_frames": 8, "num_classes": 4
    }  # fmt: skip
    known, test = toy_clips(128, seed=1), toy_clips(count, seed=2)
    for name, steps in (("natural", 0), ("adversarial", 3)):
        torch.manual_seed(0)
        model = build_model(config)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
        for turn in range(80):
            order = torch.randperm(known.size, generator=torch.Generator().manual_seed(turn))
            clips = known.select(order[:32])
            if steps:
                clips = ATTACKS["pgd"](model, clips, THREAT, seed=turn, steps=steps, keep="last")
            logits = model.train()(clips.rgb, clips.skeleton, clips.present).logits
            loss = nn.functional.cross_entropy(logits, clips.label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield name, model.eval(), test


def toy_clips(count: int, seed: int) -> Batch:
    """Four classes: a bright quarter of the video, a raised group of joints."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 4
    rgb = 0.4 + 0.1 * torch.randn(count, 3, 2, 16, 16, generator=g)
    skeleton = 0.2 * torch.randn(count, 3, 8, 25, 2, generator=g)
    for k in range(4):
        y, x = 8 * (k // 2), 8 * (k % 2)
        rgb[label == k, :, :, y : y + 8, x : x + 8] += 0.08
        skeleton[label == k, 1, :, 6 * k : 6 * k + 6] += 0.2
    present = torch.ones(count, 8, 2, dtype=torch.bool)
    present[:, :, 1] = False
    skeleton[..., 1] = 0
    return Batch(
        rgb.clamp(0, 1), skeleton, present, label, tuple(f"toy{i:04}" for i in range(count))
    )
