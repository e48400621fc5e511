"""Stage 1: look at every clip under `data/` and write the manifest, accepted and rejected."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from components.address import masked
from components.config.data import DataSection
from components.errors import UserError
from components.ntu.protocol import PROTOCOLS, Parts, assign
from components.ntu.roster import all_clips, missing_clips
from components.shards.manifest import manifest_table, write_manifest
from components.shards.raw import list_clips, local_root, look_at_all
from components.sources import Found, get_source
from components.sources.ingest import Look, missing_twin
from pipelines._stage import Stage, StageError, run_stage

log = logging.getLogger("index")
CLIPS_PER_TASK = 64
SHOWN = 5  # names of files that are no clip's; index.json lists all


def main(stage: Stage) -> None:
    """Index the data folder: artifacts/manifest.parquet and artifacts/index.json."""
    config = stage.config
    source = get_source(config.data.source)
    log.info("looking for clips under %s", masked(stage.raw))
    listing = list_clips(source, stage.raw)
    if not listing.clips:
        raise StageError(
            f"{masked(stage.raw)} holds no clip of the source {source.name!r}; expected files such "
            f"as {source.example}" + _strangers(listing.strangers)
        )
    looks = list(_look(stage, listing.clips))
    if source.name == "ntu" and not config.data.keep_missing:
        looks = [_on_missing_list(seen) for seen in looks]
    table = manifest_table(looks)
    summary = summarise(table, config.data, source.name, listing.strangers)
    write_manifest(table, stage.artifacts / "manifest.parquet", source.name)
    target = stage.artifacts / "index.json"
    target.write_text(json.dumps(summary, indent=2) + "\n")
    for line in _report(summary):
        log.info(line)
    if not summary["accepted"]:
        raise StageError(f"none of {summary['found']} clips is usable; reasons are in {target}")
    if "error" in summary:
        raise StageError(summary["error"])


def _look(stage: Stage, clips: list[Found]) -> Iterator[Look]:
    if stage.config.index.check == "names":
        yield from (missing_twin(found) or Look(found) for found in clips)
        return
    from pipelines._cluster import cluster
    from pipelines._tasks import parallel

    name, where = stage.config.data.source, stage.raw
    seconds = stage.config.index.clip_seconds

    def look_at(chunk: list[Found]) -> list[Look]:
        return look_at_all(get_source(name), where, chunk, seconds)

    def lost(chunk: list[Found]) -> list[Look]:
        # A clip that kills the process is found by looking at each alone.
        if len(chunk) == 1:
            return [Look(chunk[0], "kills-reader", "the process that opened it died")]
        parts = parallel(c, look_at, [[f] for f in chunk], workers=1, on_lost=lost)
        return [seen for part in parts for seen in part]

    chunks = [clips[i : i + CLIPS_PER_TASK] for i in range(0, len(clips), CLIPS_PER_TASK)]
    local = local_root(where)
    with cluster(stage.config.ray, read=[local] if local else []) as c:
        results = parallel(
            c,
            look_at,
            chunks,
            workers=stage.config.ray.tasks,
            describe=f"index {len(clips)} clips",
            on_lost=lost,
        )
        for part in results:
            yield from part


def _on_missing_list(seen: Look) -> Look:
    if str(seen.found.clip) not in missing_clips():
        return seen
    return replace(seen, reason="missing-skeleton", detail="on the official list")


def summarise(
    table: pa.Table, data: DataSection, source: str, strangers: Iterable[str] = ()
) -> dict[str, Any]:
    """index.json: counts of what was found, why clips were rejected, and the protocol's splits."""
    accepted = table.column("accepted").to_numpy(zero_copy_only=False)
    flags = Counter(flag for row in table.column("flags").to_pylist() for flag in row)
    reasons = Counter(r for r in table.column("reason").to_pylist() if r)
    summary: dict[str, Any] = {
        "source": source,
        "found": table.num_rows,
        "accepted": int(accepted.sum()),
        "rejected": dict(sorted(reasons.items())),
        "flags": dict(sorted(flags.items())),
        "bodies": int(table.column("bodies").to_numpy().sum()),
        "ghosts_removed": int(table.column("ghosts").to_numpy().sum()),
        "unrecognised_files": list(strangers),
        "protocol": data.protocol,
    }
    if source == "ntu" and data.protocol in PROTOCOLS:
        official = {str(clip) for clip in all_clips(60 if data.protocol.endswith("60") else 120)}
        there = len(official.intersection(table.column("clip_id").to_pylist()))
        summary["official_clips"] = {"all": len(official), "found": there}
    everything = split_counts(table, data)
    chosen = split_counts(table.filter(table.column("accepted")), data)
    summary["before_rejection"] = everything
    summary.update(chosen)
    if note := get_source(source).note:
        summary["notes"] = [*summary.get("notes", ()), note]
    return summary


def split_counts(table: pa.Table, data: DataSection) -> dict[str, Any]:
    """Clips in each split of the protocol, or the error that says why there is none."""
    columns = {
        name: table.column(name).to_numpy().astype(np.int64)
        for name in ("setup", "camera", "subject", "action")
    }
    if not table.num_rows:
        return {"train": 0, "val": 0, "test": 0, "outside_protocol": 0, "classes": 0}
    try:
        chosen = assign(Parts(**columns), data)
    except UserError as error:
        return {"error": str(error)}
    return {
        "train": int(chosen.train.sum()),
        "val": int(chosen.val.sum()),
        "test": int(chosen.test.sum()),
        "outside_protocol": int(chosen.outside.sum()),
        "classes": len(np.unique(columns["action"][~chosen.outside])),
        "notes": list(chosen.notes),
    }


def _strangers(names: list[str]) -> str:
    if not names:
        return ""
    some = ", ".join(names[:SHOWN])
    return f"; {len(names)} files have names of another form, such as {some}"


def _report(summary: dict[str, Any]) -> Iterator[str]:
    yield f"{summary['found']} clips found, {summary['accepted']} accepted"
    for reason, count in summary["rejected"].items():
        yield f"  rejected {count:>6}  {reason}"
    for flag, count in summary["flags"].items():
        yield f"  flagged  {count:>6}  {flag}"
    if summary["unrecognised_files"]:
        said = _strangers(summary["unrecognised_files"]).lstrip("; ")
        yield f"{said} (index.json lists all under unrecognised_files)"
    if "train" in summary:
        yield (
            f"{summary['protocol']}: {summary['train']} train, {summary['val']} val, "
            f"{summary['test']} test, {summary['classes']} classes, "
            f"{summary['outside_protocol']} outside the protocol"
        )
        yield from summary.get("notes", ())


if __name__ == "__main__":
    sys.exit(run_stage("index", main))
