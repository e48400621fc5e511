"""Starting and joining a Ray: what it is given, and what is said when there is none."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from components.config import load_config
from components.config.train import RaySection
from pipelines import _cluster
from pipelines._cluster import cluster
from pipelines._ray import run_storage
from pipelines._stage import ROOT, StageError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ray.init` is called with; none is started."""
    given: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **words: given.update(words))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(_cluster, "_cpus", lambda: 1)
    return given


def test_a_local_ray_counts_the_cpus_itself(started: dict[str, Any]) -> None:
    """`os.cpu_count()` is the machine's, whatever a container may use of it."""
    with cluster(RaySection()):
        assert started["address"] == "local" and "num_cpus" not in started


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
@pytest.mark.parametrize("by", ["setting", "environment"])
def test_an_address_where_nobody_listens_is_named_within_seconds(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch, form: str, by: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
    if by == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    section = RaySection(address=address if by == "setting" else "")
    begun = time.monotonic()
    with pytest.raises(StageError, match=r"nobody listens at .*ray start --head"):
        with cluster(section):
            pass
    assert not started and time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("~/runs", "{home}/runs"),
        ("runs", f"{ROOT}/runs"),
        ("/shared/my runs#1?50%", "/shared/my runs#1?50%"),
        ("", "artifacts/runs"),
        ("s3://bucket/runs", "s3://bucket/runs"),
    ],
)
def test_run_storage_as_people_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(ROOT / "params.yaml", [f"ray.storage={written}"] if written else [])
    assert run_storage(config, Path("artifacts")) == expected.format(home=tmp_path)
