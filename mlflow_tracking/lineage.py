"""Where a number comes from: code, data, settings, seeds, attacks, versions, hardware."""

import hashlib
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from components.config import Config, flatten
from components.files import read_json
from mlflow_tracking.store import ROOT

log = logging.getLogger(__name__)
# DVC rewrites these while the pipeline runs; their content is recorded by itself.
WRITTEN_BY_DVC = (":(exclude)dvc.lock", ":(exclude)data.dvc")
COMMIT = "AMR_GIT_COMMIT"  # of a submitted job, whose folder is no repository
PIPELINE = "AMR_PIPELINE_RUN"
PACKAGES = ("torch", "ray", "mlflow", "dvc", "numpy", "pyarrow", "av", "safetensors", "optuna")


def collect(config: Config, artifacts: Path, root: Path = ROOT) -> dict[str, Any]:
    """All facts by name; what cannot be known here is None."""
    commit, dirty = code(root)
    here = head(root) is not None
    shards = read_json(artifacts / "shards" / "shards.json")
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "git_branch": git(root, "rev-parse", "--abbrev-ref", "HEAD") if here else None,
        "git_diff_sha": _git_diff(root) if dirty and here else None,
        "dvc_lock": file_hash(root / "dvc.lock"),
        "data": data_hash(root / "data.dvc"),
        "manifest": file_hash(artifacts / "manifest.parquet"),
        "shards": shards.get("fingerprint"),
        "settings": settings_hash(config),
        "seed": config.seed,
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "hardware": hardware(),
    }


def code(root: Path = ROOT) -> tuple[str | None, bool | None]:
    """The commit of the project's code, and whether its files differ from it.

    A submitted job's folder is no repository, though it may lie inside of one: there it is what the
    job was sent with, and None without that.
    """
    commit = head(root)
    if commit is None:
        sent, _, changed = os.environ.get(COMMIT, "").partition("-")
        if sent:
            return sent, bool(changed)
        log.warning("no git commit to record: %s is no repository, and no job names one", root)
        return None, None
    status = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN_BY_DVC)
    return commit, None if status is None else bool(status)


def head(root: Path) -> str | None:
    """The commit that is checked out in `root`; None where git tracks no file of this folder.

    Git answers from any folder inside a repository, so from an ignored one, too, with a commit
    that says nothing of the files there.
    """
    return git(root, "rev-parse", "HEAD") if git(root, "ls-files", "--", ".") else None


def tags(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as tags: one each, so that runs can be searched by them."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{k}": v for k, v in value.items()})
        else:
            flat[key] = value
    found = {f"lineage.{key}": value for key, value in flat.items() if value is not None}
    return {**found, "mlflow.source.git.commit": facts["git_commit"] or "unknown"}


def command() -> str | None:
    """The `dvc repro` (or `dvc exp run`) that started this process; None without one.

    DVC tells its stages nothing of the command they belong to, so it is known by the process id
    and start time of the `dvc` above this process. The environment variable AMR_PIPELINE_RUN names
    it instead where something else starts the stages.
    """
    if named := os.environ.get(PIPELINE):
        return named
    if "DVC_STAGE" not in os.environ:
        return None
    try:
        for process in psutil.Process().parents():
            if any(Path(word).name == "dvc" for word in process.cmdline()[:3]):
                return f"{process.pid}@{process.create_time():.0f}"
    except psutil.Error as error:
        log.info("the command above this stage is unknown (%s); its run has no parent", error)
    return None


def settings_hash(config: Config) -> str:
    """A hash of all settings that can change a number: not of where files lie or who tracks."""
    values = {
        key: value
        for key, value in flatten(config).items()
        if not key.startswith(("tracking.", "paths.", "ray.", "report."))
    }
    text = "\n".join(f"{key}={values[key]!r}" for key in sorted(values))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str | None:
    """sha256 of a file, shortened; None without it."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def data_hash(path: Path) -> str | None:
    """What DVC says of the raw data: the hash in `data.dvc`."""
    if not path.is_file():
        return None
    outs = (yaml.safe_load(path.read_text()) or {}).get("outs") or [{}]
    return outs[0].get("md5") or outs[0].get("etag") or outs[0].get("checksum")


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment() -> str:
    """Every installed package with its version, a line each, as pip writes them."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def hardware() -> dict[str, Any]:
    """What the numbers were computed on."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "gpus": torch.cuda.device_count() if cuda else 0,
        "host": platform.node(),
        "os": platform.platform(),
    }


def git(root: Path, *words: str) -> str | None:
    """What git answers in `root`; None without git or a repository."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _git_diff(root: Path) -> str | None:
    # Settings are recorded key by key, whoever changed them where.
    diff = git(root, "diff", "HEAD", "--", ".", *WRITTEN_BY_DVC, ":(exclude)params.yaml")
    return None if diff is None else hashlib.sha256(diff.encode()).hexdigest()[:16]
