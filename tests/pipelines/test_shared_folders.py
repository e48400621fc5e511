"""A node that does not see what the others see is named before a stage begins."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipelines import _shared_folders
from pipelines._shared_folders import check_seen_by_all
from pipelines._stage import StageError


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Address of each node: what it answers to the paths, or an error; tasks run at once."""
    found: dict[str, object] = {}

    class Task:
        def __init__(self, strategy: object) -> None:
            self.address = strategy.node_id

        def remote(self, paths: list[str]) -> tuple[str, list[str]]:
            assert all(Path(path).exists() for path in paths)
            return self.address, tuple(paths)

    def get(asked: tuple[str, list[str]], timeout: float) -> list[str]:
        answer = found[asked[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer(list(asked[1]))

    made = SimpleNamespace(options=lambda num_cpus, scheduling_strategy: Task(scheduling_strategy))
    monkeypatch.setattr(
        _shared_folders,
        "NodeAffinitySchedulingStrategy",
        lambda node, soft: SimpleNamespace(node_id=node),
    )
    monkeypatch.setattr(ray, "remote", lambda function: made)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(
        ray,
        "nodes",
        lambda: (
            [
                {
                    "NodeID": name,
                    "NodeManagerAddress": name,
                    "Alive": True,
                    "Resources": {"CPU": 1.0},
                }
                for name in found
            ]
            + [{"NodeID": "head", "NodeManagerAddress": "head", "Alive": True, "Resources": {}}]
            + [
                {
                    "NodeID": "x",
                    "NodeManagerAddress": "x",
                    "Alive": False,
                    "Resources": {"CPU": 1.0},
                }
            ]
        ),
    )
    return found


def test_a_node_that_sees_all_is_fine_and_nothing_is_left_behind(nodes, tmp_path) -> None:
    nodes["10.0.0.1"] = _shared_folders._unseen
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clip").touch()
    check_seen_by_all([tmp_path / "data"], [tmp_path / "new"])
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("ending", "folder"), [("/clip", "data"), ("", "new")])
def test_the_node_and_the_folder_are_named(nodes, tmp_path, ending, folder) -> None:
    """Also an empty folder in the place of a mounted one: what counts is what lies in it."""
    nodes["10.0.0.1"] = _shared_folders._unseen
    nodes["10.0.0.2"] = lambda paths: [p for p in paths if Path(p).parent.name == folder]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clip").touch()
    with pytest.raises(StageError, match=f"10.0.0.2 misses {tmp_path}/{folder}") as caught:
        check_seen_by_all([tmp_path / "data"], [tmp_path / "new"])
    assert "10.0.0.1" not in str(caught.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_node_that_is_lost_meanwhile_does_not_matter(nodes, tmp_path) -> None:
    nodes["10.0.0.1"] = ray.exceptions.NodeDiedError("gone")
    nodes["10.0.0.2"] = ray.exceptions.GetTimeoutError("late")
    check_seen_by_all([], [tmp_path])


def test_paths_are_looked_at_where_the_task_runs(tmp_path) -> None:
    assert _shared_folders._unseen([str(tmp_path), str(tmp_path / "no")]) == [str(tmp_path / "no")]
