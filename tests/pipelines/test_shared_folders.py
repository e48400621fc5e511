"""A node that does not see what the others see is named before a stage begins."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipelines import _tasks
from pipelines._shared_folders import check_seen_by_all
from pipelines._stage import StageError
from pipelines._tasks import on_each_node


def all_see(look: Callable, paths: list[str]) -> dict[str, list[str]]:
    return {"10.0.0.1": look(paths)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clip").touch()
    return tmp_path


def test_nodes_that_see_all_are_fine_and_nothing_is_left_behind(folder: Path) -> None:
    check_seen_by_all([folder / "data", folder / "none"], [folder / "new"], all_see)
    assert list((folder / "new").iterdir()) == []


@pytest.mark.parametrize("missed", ["data", "new"])
def test_the_node_and_the_folder_are_named(folder: Path, missed: str) -> None:
    """Also an empty folder in the place of a mounted one: what counts is what lies in it."""

    def one_does_not(look: Callable, paths: list[str]) -> dict[str, list[str]]:
        assert all(Path(path).exists() for path in paths)
        unseen = [path for path in paths if Path(path).parent.name == missed]
        return {"10.0.0.1": look(paths), "10.0.0.2": unseen}

    with pytest.raises(StageError, match=f"10.0.0.2 misses {folder}/{missed}") as caught:
        check_seen_by_all([folder / "data"], [folder / "new"], one_does_not)
    assert "10.0.0.1" not in str(caught.value)
    assert list((folder / "new").iterdir()) == []


def test_each_node_with_cpus_is_asked_and_a_lost_one_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def node(name: str, **changes: object) -> dict[str, object]:
        resources = {"NodeID": name, "NodeManagerAddress": name, "Resources": {"CPU": 1.0}}
        return {**resources, "Alive": True, **changes}

    class Task:
        def options(self, *, num_cpus: int, scheduling_strategy: str) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda item: (scheduling_strategy, item))

    def get(asked: tuple[str, str], timeout: float) -> str:
        if asked[0] == "lost":
            raise ray.exceptions.NodeDiedError("gone")
        return f"{asked[0]} {asked[1]}"

    nodes = [node("a"), node("lost"), node("head", Resources={}), node("dead", Alive=False)]
    monkeypatch.setattr(_tasks, "NodeAffinitySchedulingStrategy", lambda name, soft: name)
    monkeypatch.setattr(ray, "remote", lambda function: Task())
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert on_each_node(str, "x") == {"a": "a x"}
    assert "node lost does not answer" in caplog.text
