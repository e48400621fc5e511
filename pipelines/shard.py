"""Stage 2: write the accepted clips as sealed Arrow shards, one parallel task a shard."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from components.ntu.crop import MARGIN
from components.shards.manifest import found_rows, read_manifest
from components.shards.raw import local_root
from components.shards.schema import JPEG_QUALITY
from components.shards.sealing import INDEX, seal, unseal
from components.shards.storage import open_store
from components.shards.writer import Plan, Written, plan_shards, read_alone, write_shard
from components.sources import get_source
from pipelines._cluster import cluster
from pipelines._shared_folders import folders
from pipelines._stage import Stage, StageError, run_stage
from pipelines._tasks import Cluster, parallel

log = logging.getLogger("shard")


def main(stage: Stage) -> None:
    """Write artifacts/shards (or the folder at shard.uri) from the manifest's accepted clips."""
    config, section = stage.config, stage.config.shard
    table, name = read_manifest(stage.require(stage.artifacts / "manifest.parquet", "index"))
    source = get_source(name)
    clips = found_rows(table.filter(table.column("accepted")))
    if not clips:
        raise StageError("the manifest has no accepted clip; see artifacts/index.json for reasons")
    settings = {
        "source": source.name,
        "unit": source.unit,
        "codec": section.codec,
        "jpeg_quality": JPEG_QUALITY if section.codec == "jpeg" else 0,
        "frames": section.frames,
        "size": section.size,
        "margin": MARGIN,
    }
    if section.decode != "exact":  # absent otherwise, as in shards from before there was a choice
        settings["decode"] = section.decode
    store = open_store(stage.shards, create=True)
    plans = plan_shards(
        clips,
        clips_per_shard=section.clips_per_shard,
        root=stage.raw,
        where=stage.shards,
        settings=settings,
        seconds=config.index.clip_seconds,
    )
    unseal(store)
    # With a store elsewhere the stages behind depend on a local copy of its index.
    copy = stage.artifacts / "shards" / INDEX if section.uri else None
    if copy:
        copy.unlink(missing_ok=True)
    started = time.monotonic()
    raw = local_root(stage.raw)
    with cluster(config.ray, read=[raw] if raw else [], written=folders(stage.shards)) as c:
        written = write_all(c, plans, config.ray.tasks)
    body = seal(store, written, settings)
    if copy:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps({**body, "uri": section.uri}, indent=1) + "\n")
    fresh = [w for w in written if w.fresh]
    log.info(
        "%d clips in %d shards at %s (%d written, %d kept) in %.1f s",
        body["clips"],
        len(written),
        stage.shards,
        len(fresh),
        len(written) - len(fresh),
        time.monotonic() - started,
    )
    for reason, count in sorted(Counter(r["reason"] for r in body["rejected"]).items()):
        log.warning("rejected while reading: %d %s (listed in shards.json)", count, reason)
    if not body["clips"]:
        raise StageError(f"no clip could be read; reasons are in {stage.shards}/{INDEX}")


def write_all(
    c: Cluster,
    plans: list[Plan],
    workers: int,
    write: Callable[[Plan], Written] = write_shard,
    read: Callable[[Plan], frozenset[str]] = read_alone,
) -> list[Written]:
    """One task a shard. When a task's process keeps dying, the clip that does it is sought by
    reading each alone, and the shard is written without it."""

    def without_deadly(plan: Plan) -> Written:
        alone = [replace(plan, clips=(clip,)) for clip in plan.clips]
        dead = parallel(c, read, alone, on_lost=lambda one: frozenset([str(one.clips[0][0].clip)]))
        return next(parallel(c, write, [replace(plan, deadly=frozenset().union(*dead))]))

    clips = sum(len(plan.clips) for plan in plans)
    return list(
        parallel(
            c,
            write,
            plans,
            workers=workers,
            describe=f"shard {clips} clips",
            on_lost=without_deadly,
        )
    )


if __name__ == "__main__":
    sys.exit(run_stage("shard", main))
