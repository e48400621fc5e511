"""What `amr doctor` looks at of the project: recipe, data, DVC, the MLflow store, Ray, git."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines._findings import OK, PROBLEM, WARN, Context, Finding

ROOT = Path(__file__).resolve().parent.parent
ASK_SECONDS = 3.0  # for a server's or a database's answer
GIT_SECONDS = 20.0
DVC_SECONDS = 60.0
SHARED_MEMORY = 1e9  # bytes of /dev/shm below which Ray puts its objects on the disk
RESERVE = 1.2  # free space wanted, as a multiple of what the shards will take


def git(context: Context) -> Iterator[Finding]:
    """Whether results can name the commit that made them."""
    head = _run(["git", "rev-parse", "--short=12", "HEAD"], context.root, GIT_SECONDS)
    if head is None or head.returncode:
        fix = "work in a clone, so that every number names the commit that made it"
        yield Finding("git", WARN, f"{context.root} has no commit", fix)
        return
    changed = _run(["git", "status", "--porcelain", "-uno"], context.root, GIT_SECONDS)
    names = changed.stdout.splitlines() if changed is not None else []
    commit = head.stdout.strip()
    # Settings are recorded key by key, and DVC's own files are its business.
    code = [n for n in names if n[3:] not in ("params.yaml", "dvc.lock", "data.dvc")]
    if code:
        fix = "commit them before a run that others should be able to repeat"
        yield Finding("git", WARN, f"at {commit}, {len(code)} tracked files are changed", fix)
    else:
        yield Finding("git", OK, f"at {commit}, no tracked code is changed")


def recipe(context: Context) -> Iterator[Finding]:
    """Whether params.yaml can be read and is what its recipe would give today."""
    from components.config.load import read_yaml
    from components.config.recipes import COMPOSED, compose, recipes_folder, state

    config, params = context.config, Path(context.params)
    composed = str(read_yaml(params).get(COMPOSED, ""))
    found = f"{config.recipe}, protocol {config.data.protocol}, results in {config.paths.artifacts}"
    now = state(compose(recipes_folder(params), config.recipe))
    if composed.partition("@")[0] == config.recipe and composed != now:
        fix = f"amr recipe {config.recipe} (it writes params.yaml anew; edits there are lost)"
        yield Finding("recipe", WARN, f"{found}; the recipe has changed since", fix)
    else:
        yield Finding("recipe", OK, found)


def data(context: Context) -> Iterator[Finding]:
    """Which clips of the recipe's data set are there, by the names of their files."""
    from components.address import local_path
    from components.shards.manifest import manifest_table
    from components.sources import get_source
    from components.sources.ingest import Look, missing_twin
    from pipelines.index import summarise

    config = context.config
    source, folder = get_source(config.data.source), local_path(config.paths.data, context.root)
    if not folder.is_dir():
        if config.recipe == "sample":
            text = f"{folder} is not there yet"
            yield Finding(
                "data", WARN, text, "amr demo writes the sample there; so does amr sample"
            )
        else:
            fix = f"link the data set there: ln -s /where/it/is {folder}; or set paths.data"
            yield Finding("data", PROBLEM, f"{folder} is not there", fix)
        return
    listing = source.find(folder)
    example = f"expected files such as {source.example}"
    if not listing.clips:
        yield Finding("data", PROBLEM, f"{folder} holds no clip of {source.name}", example)
        return
    looks = [missing_twin(clip) or Look(clip) for clip in listing.clips]
    body = summarise(manifest_table(looks), config.data, source.name, listing.strangers)
    found = f"{body['found']} clips of {source.name} in {folder}"
    if "official_clips" in body:
        found += f" ({body['official_clips']['found']} of {body['official_clips']['all']} official)"
    if "error" in body:
        fix = "choose a protocol that fits (data.protocol), or add the missing clips"
        yield Finding("data", PROBLEM, f"{found}; {body['error']}", fix)
        return
    found += f"; {body['train']} train, {body['val']} val, {body['test']} test"
    lacking = [f"{count} {reason}" for reason, count in body["rejected"].items()]
    if listing.strangers:
        lacking.append(f"{len(listing.strangers)} files with odd names ({listing.strangers[0]})")
    if lacking:
        fix = "amr index lists them in index.json; download again what is missing"
        yield Finding("data", WARN, f"{found}; {', '.join(lacking)}", fix)
    else:
        yield Finding("data", OK, found)
    yield from _room_for_shards(context, body["accepted"])


def _room_for_shards(context: Context, clips: int) -> Iterator[Finding]:
    """The largest that the shards will be, against the free space, while there are none."""
    from components.address import local_path

    shard = context.config.shard
    folder = local_path(context.config.paths.artifacts, context.root)
    if "://" in shard.uri or (folder / "shards" / "shards.json").is_file():
        return
    while not folder.exists():
        folder = folder.parent
    need = clips * shard.frames * shard.size**2 * 3.0
    free = shutil.disk_usage(folder).free
    if need * RESERVE > free:
        text = f"shards take up to {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        yield Finding("data", PROBLEM, text, "set paths.artifacts or shard.uri to a larger disk")


def dvc(context: Context) -> Iterator[Finding]:
    """Which stages `dvc repro` would run; asked only where DVC knows the data already."""
    version = metadata.version("dvc")
    if not (context.root / ".dvc").is_dir():
        yield Finding("DVC", PROBLEM, f"{version}; {context.root} is no DVC project", "dvc init")
        return
    if not (context.root / "dvc.lock").is_file():
        # To know whether data changed, DVC would read all of it.
        yield Finding(
            "DVC", OK, f"{version}; nothing has been run yet, `dvc repro` runs all stages"
        )
        return
    done = _run([sys.executable, "-m", "dvc", "status", "--json"], context.root, DVC_SECONDS)
    if done is None:
        text = f"{version}; `dvc status` had no answer after {DVC_SECONDS:g} s"
        fix = "let `dvc status` run to its end once: it reads new data to know its hash"
        yield Finding("DVC", WARN, text, fix)
    elif done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        yield Finding("DVC", WARN, f"{version}; {said[-1]}", "run `dvc status` and read all of it")
    else:
        stale = sorted(name.rpartition(":")[2] for name in json.loads(done.stdout))
        some = ", ".join(stale[:4]) + (" ..." if len(stale) > 4 else "")
        found = f"`dvc repro` would run {some}" if stale else "all stages are up to date"
        yield Finding("DVC", OK, f"{version}; {found}")


def mlflow(context: Context) -> Iterator[Finding]:
    """Whether the tracking store answers, and whether runs wait to be sent to it."""
    from components.address import local_path, parse_address, probe
    from components.errors import UserError
    from mlflow_tracking.moved import check_not_moved
    from mlflow_tracking.publish import pending
    from mlflow_tracking.record import records
    from mlflow_tracking.store import tracking_uri

    address = parse_address(tracking_uri(context.config.tracking, context.root), "tracking")
    found = f"{metadata.version('mlflow')}, {address.masked}"
    reason = probe(address, ASK_SECONDS)
    fix = "start the server, or correct tracking.uri or MLFLOW_TRACKING_URI (docs/mlflow.md)"
    if not reason and address.scheme == "sqlite":
        try:
            check_not_moved(Path(address.path))
        except UserError as error:
            reason, _, fix = str(error).partition("; ")
    elif not reason and address.scheme in ("http", "https"):
        reason = _server_fault(address.uri)
    if reason:
        yield Finding("MLflow", PROBLEM, f"{found}: {reason}", fix)
    elif address.scheme == "sqlite" and not Path(address.path).exists():
        yield Finding("MLflow", OK, f"{found} (made on first use)")
    else:
        yield Finding("MLflow", OK, f"{found} answers")
    artifacts = local_path(context.config.paths.artifacts, context.root)
    waiting = sum(1 for record in records(artifacts) if pending(record))
    if waiting:
        fix = "amr sync (not while a stage is running: it sends by itself)"
        yield Finding("MLflow", WARN, f"{waiting} runs are not sent to the store yet", fix)


def _server_fault(uri: str) -> str:
    import requests

    from components.address import masked

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=ASK_SECONDS)
    except requests.RequestException as error:
        return masked(str(error))
    if answer.status_code in (401, 403):
        return "the server asks for a login (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
    return "" if answer.ok else f"what answers is no MLflow server (status {answer.status_code})"


def ray(context: Context) -> Iterator[Finding]:
    """Ray's version, and whether the cluster of the settings answers."""
    from components.address import parse_address
    from pipelines._cluster import unreachable

    version = metadata.version("ray")
    given = (context.config.ray.address or os.environ.get("RAY_ADDRESS", "")).strip()
    local = given in ("", "local", "auto") or given.startswith(("http://", "https://"))
    if not local:
        address = parse_address(given, "cluster")
        if reason := unreachable(address, ASK_SECONDS):
            fix = "start it (`ray start --head`), or correct ray.address or RAY_ADDRESS"
            yield Finding("Ray", PROBLEM, f"{version}; {address.masked}: {reason}", fix)
        else:
            yield Finding("Ray", OK, f"{version}; a cluster answers at {address.masked}")
        return
    memory = Path("/dev/shm")
    if memory.is_dir() and (size := shutil.disk_usage(memory).total) < SHARED_MEMORY:
        text = f"{version}; /dev/shm has {size / 1e6:.0f} MB, so Ray's objects go to the disk"
        yield Finding("Ray", WARN, text, "start the container with --shm-size=2g or more")
        return
    where = "the cluster of this machine" if given == "auto" else "a Ray of its own for each stage"
    yield Finding("Ray", OK, f"{version}; {where}")


def _run(words: list[str], folder: Path, seconds: float) -> Any:
    """The finished process; None where there is no such program or no answer in time."""
    try:
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None
