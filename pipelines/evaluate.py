"""Stage evaluate: trained models under the suite of attacks -> artifacts/<recipe>/evaluation/."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.checkpoint import read_config
from components.datasets import select_split
from components.evaluation.adversarial_set import check_licence, export_adversarial
from components.evaluation.comparable import apart_from, clips_fingerprint
from components.evaluation.curves import FACTORS, curves
from components.evaluation.evaluate import Chunk, assemble
from components.evaluation.gallery import CANDIDATES, Gallery, to_file_table
from components.evaluation.piece import (
    Piece,
    export_path,
    key_of,
    read_piece,
    read_table,
    threat_of,
    write_atomically,
)
from components.evaluation.records import SCHEMA
from components.evaluation.subset import rank
from components.evaluation.suite import SUITES, Entry, suite_hash
from components.files import read_json, write_json
from components.sample.folder import read_marker
from components.shards import ShardSet
from mlflow_tracking import lineage
from mlflow_tracking.evaluation import log_evaluation
from pipelines._cluster import cluster
from pipelines._pieces import run_pieces
from pipelines._shared_folders import folders
from pipelines._stage import ROOT, Stage, StageError, run_stage

log = logging.getLogger("evaluate")
CURVE_CLIPS = 32  # clips of one task of the curves


@dataclass(frozen=True)
class Clips:
    """The test split: rows of the shards, their clip ids, the classes and what to call it all."""

    rows: np.ndarray
    ids: list[str]
    classes: list[int]
    fingerprint: str
    source: str


def main(stage: Stage) -> None:
    """Evaluate the trained models; interrupted, run it again and it goes on."""
    section = stage.config.evaluate
    names = runs(stage)
    clips = test_clips(stage)
    if section.export:
        check_licence(synthetic(stage, clips.ids), section.allow_licensed_export)
    plans = {name: plan(stage, name, clips) for name in names}
    with cluster(stage.config.ray, read=folders(stage.shards)) as c:
        for name, pieces in plans.items():
            paths = run_pieces(
                c,
                pieces,
                workers=stage.config.ray.tasks,
                describe=f"evaluate {name}: {len(clips.ids)} clips, {section.suite}",
                gpus=stage.config.ray.gpus_per_worker,
            )
            write_results(stage, name, clips, pieces, paths)
            log_evaluation(stage.config, stage.artifacts, name, stage.shards)
            warn_of_other_terms(stage.artifacts / "evaluation", name)


def warn_of_other_terms(folder: Path, name: str) -> None:
    """Say which evaluations in the folder must not be compared with the one just written."""
    files = [path for path in sorted(folder.glob("*.json")) if not path.stem.endswith("_curves")]
    for line in apart_from(name, {path.stem: read_json(path) for path in files}):
        log.warning("%s", line)


def runs(stage: Stage) -> list[str]:
    """The run of `variant=` and `seed=` on the command line, else all that are trained."""
    if any(word.partition("=")[0].strip() in ("variant", "seed") for word in stage.overrides):
        return [stage.config.run]
    found = sorted(p.parent.name for p in (stage.artifacts / "train").glob("*/best"))
    if not found:
        raise StageError(
            f"no trained model under {stage.artifacts / 'train'}; run `python -m pipelines.train`"
        )
    return found


def test_clips(stage: Stage) -> Clips:
    """The clips of the test split, all or a fixed draw of `evaluate.clips`."""
    if "://" not in stage.shards:
        stage.require(Path(stage.shards), "shard")
    shards = ShardSet.open(stage.shards, cache_gb=stage.config.shard.cache_gb)
    split = select_split(shards, stage.config.data)
    if not len(split.test):
        raise StageError("the test split has no clips; check data.protocol and its lists")
    rows = sorted(split.test.tolist(), key=lambda row: rank(shards.clip_ids[row]))
    chosen = rows[: stage.config.evaluate.clips or len(rows)]
    ids = [shards.clip_ids[row] for row in chosen]
    return Clips(np.array(chosen), ids, split.classes, shards.fingerprint, shards.source)


def synthetic(stage: Stage, ids: Sequence[str]) -> bool:
    """Whether the bundled generator lists every one of these clips among its own files."""
    marker = read_marker(stage.raw)
    own = {Path(file).stem for file in marker["files"]} if marker else set()
    return own.issuperset(ids)


def plan(stage: Stage, name: str, clips: Clips) -> list[Piece]:
    """The tasks of one model: chunks of clips, then the checks, the curves, the gallery."""
    config, section = stage.config, stage.config.evaluate
    folder = stage.require(stage.artifacts / "train" / name / "best", "train")
    about = read_config(folder)
    if list(about["classes"]) != clips.classes:
        raise StageError(
            f"{folder} was trained on {len(about['classes'])} classes, the split has "
            f"{len(clips.classes)} (or others); train again with these data settings"
        )
    twin = twin_of(stage, name, about)
    facts = {
        "checkpoint": about["weights_sha256"],
        "model": about["model"],
        "twin": read_config(twin)["weights_sha256"] if twin else "",
        "shards": clips.fingerprint,
        "suite": suite_hash(SUITES[section.suite]),
    }
    base = Piece(
        kind="suite",
        checkpoint=str(folder),
        twin=str(twin or ""),
        shards=stage.shards,
        cache_gb=config.shard.cache_gb,
        rows=(),
        classes=tuple(clips.classes),
        threat=threat_of(config.threat),
        suite=section.suite,
        seed=config.seed,
        factors=FACTORS,
        export=section.export,
        cuda=config.ray.gpus_per_worker > 0,
        folder=str(working(stage, name)),
    )
    pieces = [replace(base, rows=part) for part in split_evenly(clips.rows, section.batch_size)]
    if section.checks:
        # All of them, in order of `rank`: the checks read on until enough are classified rightly.
        pieces.append(replace(base, kind="checks", rows=as_rows(clips.rows)))
    if section.curve_clips:
        some = clips.rows[: section.curve_clips]
        pieces += [replace(base, kind="curves", rows=p) for p in split_evenly(some, CURVE_CLIPS)]
    pictures = section.allow_licensed_export or synthetic(stage, clips.ids)
    drawn = as_rows(clips.rows[:CANDIDATES])
    pieces.append(replace(base, kind="gallery", rows=drawn, pictures=pictures))
    return [replace(piece, key=key_of(piece, facts)) for piece in pieces]


def twin_of(stage: Stage, name: str, about: dict[str, Any]) -> Path | None:
    """The checkpoint to transfer from: only for AMR, and only when the suite has such an attack."""
    twin = f"{stage.config.evaluate.twin}-s{name.rpartition('-s')[2]}"
    wanted = any(entry.needs == "twin" for entry in SUITES[stage.config.evaluate.suite])
    if not wanted or not stage.config.evaluate.twin or twin == name:
        return None
    if about["model"]["fusion"] != "amr":
        return None
    folder = stage.artifacts / "train" / twin / "best"
    if not folder.exists():
        raise StageError(
            f"{folder} is missing, and the suite transfers attacks from it; run `python -m "
            f"pipelines.train variant={stage.config.evaluate.twin}`, or set evaluate.twin="
        )
    return folder


def split_evenly(rows: np.ndarray, most: int) -> list[tuple[int, ...]]:
    """Parts of nearly equal size, none above `most`; they depend on the rows alone."""
    return [as_rows(part) for part in np.array_split(rows, -(-len(rows) // most))]


def as_rows(rows: np.ndarray) -> tuple[int, ...]:
    """Plain integers, which a key can be made of."""
    return tuple(int(row) for row in rows)


def working(stage: Stage, name: str) -> Path:
    """Where finished pieces lie until all are done."""
    return stage.artifacts / "partial" / "evaluation" / name


def write_results(
    stage: Stage, name: str, clips: Clips, pieces: Sequence[Piece], paths: Sequence[Path]
) -> None:
    """Join the pieces, in their order, to the records, the summary, the curves, the gallery."""
    found: dict[str, list[tuple[Any, Any]]] = {
        "suite": [], "checks": [], "curves": [], "gallery": []
    }  # fmt: skip
    for piece, path in zip(pieces, paths, strict=True):
        found[piece.kind].append(read_piece(path))
    out = stage.artifacts / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = read_config(pieces[0].checkpoint)
    threat = pieces[0].threat
    chunks = [Chunk(table, extra["costs"]) for table, extra in found["suite"]]
    summary = assemble(
        chunks,
        [Entry(**entry) for entry in found["suite"][0][1]["entries"]],
        threat,
        classes=clips.classes,
        flags=[flag for _, flags in found["checks"] for flag in flags],
        about={
            "recipe": stage.config.recipe,
            "variant": name.rpartition("-s")[0],
            "seed": int(name.rpartition("-s")[2]),
            "suite": stage.config.evaluate.suite,
            "checkpoint_sha256": checkpoint["weights_sha256"],
            "shards_fingerprint": clips.fingerprint,
            "source": clips.source,
            "commit": lineage.code(ROOT)[0],
        },
    )
    train = checkpoint.get("train", {})
    curve: dict[str, Any] = {"run": name, "train_eps": train_eps(train)}
    if found["curves"]:
        drawn = sum(len(piece.rows) for piece in pieces if piece.kind == "curves")
        grids = [grid for _, grid in found["curves"]]
        # What curves of several runs must share before they may stand in one table.
        curve["shards_fingerprint"] = clips.fingerprint
        curve["clips_fingerprint"] = clips_fingerprint(clips.ids[:drawn])
        curve = curves(grids, drawn, threat, FACTORS, curve)
    if stage.config.evaluate.export:
        export_adversarial(
            [read_table(export_path(p.path)) for p in pieces if p.kind == "suite"],
            out / f"{name}_adversarial.arrow",
            synthetic=synthetic(stage, clips.ids),
            allow_licensed_export=stage.config.evaluate.allow_licensed_export,
        )
    records = pa.concat_tables([chunk.records for chunk in chunks])
    write_atomically(out / f"{name}.arrow", records.replace_schema_metadata(SCHEMA.metadata))
    write_atomically(out / f"{name}_gallery.arrow", to_file_table(Gallery(*found["gallery"][0])))
    write_json(out / f"{name}_curves.json", curve)
    write_json(out / f"{name}.json", summary)
    tidy(working(stage, name), [] if stage.config.evaluate.export else pieces)
    log.info(line(summary))


def tidy(folder: Path, pieces: Sequence[Piece]) -> None:
    """Remove all but these finished pieces.

    They stay because DVC runs this stage again whenever any model is trained (`standard` transfers
    attacks between them), and then nothing has to be attacked a second time.
    """
    kept = {piece.path for piece in pieces}
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()
    if not kept:
        folder.rmdir()


def train_eps(train: dict[str, Any]) -> dict[str, float]:
    """The largest budgets that a model was trained with, by modality; 0 where it was not."""
    attack = train.get("attack", {})
    cell = attack.get("modalities", "both")
    touched = {"rgb", "skeleton"} if cell in ("both", "mix") else {cell}
    if train.get("method") == "natural":
        touched = set()
    return {m: attack.get(f"{m}_eps", 0.0) if m in touched else 0.0 for m in ("rgb", "skeleton")}


def line(summary: dict[str, Any]) -> str:
    """One line for the terminal."""
    worst = ", ".join(f"{cell} {100 * a['value']:.1f}" for cell, a in summary["worst"].items())
    clean = 100 * summary["clean_acc"]["value"]
    return (
        f"{summary['variant']} seed {summary['seed']}: clean {clean:.1f} %, worst case {worst} % "
        f"of {summary['clips']} clips; gradient-masking checks: {summary['flagged']}"
    )


if __name__ == "__main__":
    sys.exit(run_stage("evaluate", main))
