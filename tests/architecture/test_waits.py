"""Whatever waits says for how long: docs/waits.md lists every wait in the code, and no other."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("components", "pipelines", "mlflow_tracking", "deploy")
# Names of calls that block until something else has happened.
BLOCKING = {
    "wait", "join", "get", "result", "communicate", "acquire", "run",
    "check_call", "check_output", "urlopen", "create_connection", "sleep", "fit", "recv", "accept",
    "tail_job_logs", "submit_job", "barrier", "all_reduce", "init_process_group", "as_completed",
}  # fmt: skip
BY_ITSELF = {"FileLock", "in_time"}  # called without an owner
ROW = re.compile(r"\| `([\w/.]+)` \| `([\w.()]+)` \| ([^|]+) \|")


def waits_of(source: str) -> set[str]:
    """The functions called in `source` that may block, as they are written there."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, last = name.rpartition(".")
        if name in BY_ITSELF:
            found.add(name)
            continue
        if last not in BLOCKING or not owner:
            continue
        if last == "join" and (node.args or owner.startswith(("'", '"'))):
            continue  # of texts or paths; a thread's takes no argument but `timeout=`
        if last == "get" and node.args and owner != "ray":
            continue  # of a mapping
        if last == "run" and owner not in ("subprocess", "asyncio"):
            continue
        found.add(name if re.fullmatch(r"[\w.]+", name) else f"...{last}")
    return found


def in_the_code() -> set[tuple[str, str]]:
    return {
        (str(path.relative_to(ROOT)), name)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for name in waits_of(path.read_text())
    }


def in_the_list() -> dict[tuple[str, str], str]:
    rows = ROW.findall((ROOT / "docs" / "waits.md").read_text())
    return {(file, name): limit.strip() for file, name, limit in rows}


def test_every_wait_is_listed_with_its_limit() -> None:
    listed = in_the_list()
    assert set(listed) == in_the_code()
    assert all(listed.values())


def test_who_has_no_limit_says_why() -> None:
    for (file, name), limit in in_the_list().items():
        if "no limit" in limit:
            reason = limit.partition("no limit")[2]
            assert len(reason.split()) > 8, f"{file}: {name} has no limit, and no reason for it"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("thread.join()", {"thread.join"}),
        ("thread.join(timeout=1)", {"thread.join"}),
        ("', '.join(words)", set()),
        ("os.path.join(a, b)", set()),
        ("ray.get(ref)", {"ray.get"}),
        ("table.get(key)", set()),
        ("table.get(key, 0)", set()),
        ("lines.get()", {"lines.get"}),
        ("(a or b).wait(1)", {"...wait"}),
        ("subprocess.run(words)", {"subprocess.run"}),
        ("stage.run(words)", set()),
        ("FileLock(path, timeout=1)", {"FileLock"}),
        ("in_time(3.0, ask)", {"in_time"}),
    ],
)
def test_what_counts_as_a_wait(source: str, found: set[str]) -> None:
    assert waits_of(source) == found
