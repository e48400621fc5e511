"""The commands that README and the documentation tell people to type."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Made from code, or a record of what was once run.
LEFT_OUT = ("docs/api.md", "docs/settings.md", "docs/research/*")
PROGRAMS = (
    "make", "python", "python3", "dvc", "amr", "ray", "mlflow", "pip",
    "source", "eval", "export", "for", "xdg-open", "ln",
)  # fmt: skip
# A row of a table of results begins with a variant's name, and one is called like the program.
TABLE = re.compile(r"amr( {2,}| - )")
START = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:[\w.-]*/)*(?:{'|'.join(PROGRAMS)}) ")


@dataclass(frozen=True)
class Command:
    """One command: its page, its words as they stand there, and what it needs besides a project."""

    page: str
    text: str
    needs: str


def pages() -> list[Path]:
    """Every page that people read to learn what to type."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("deploy/*/README.md")]
    found += sorted(ROOT.glob("docs/**/*.md"))
    return [p for p in found if not any(p.relative_to(ROOT).match(o) for o in LEFT_OUT)]


def blocks(text: str) -> Iterator[list[str]]:
    """The blocks of code of a page: indented by four blanks, or fenced as a shell's."""
    block: list[str] = []
    fence = None
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fence = line[3:].strip() if fence is None else None
        elif (fence in ("bash", "sh", "console")) or (fence is None and line.startswith("    ")):
            block.append(line[4:] if fence is None else line)
            continue
        if block:
            yield block
        block = []


def commands() -> list[Command]:
    """All of them, in the order of the pages; a continued line or a loop is one command.

    "needs ..." in the comment behind a command, or in a comment of its own above it, says what it
    needs; the latter holds to the end of the block.
    """
    found = []
    for page in pages():
        for block in blocks(page.read_text()):
            needs, rest = "", [*block]
            while rest:
                line = rest.pop(0)
                while line.endswith("\\") or (line.startswith("for ") and "done" not in line):
                    line = line.rstrip("\\") + "\n" + rest.pop(0)
                words, _, comment = line.partition("  #")
                if line.startswith("#"):
                    needs = _needs(line) or needs
                elif START.match(words.removeprefix("$ ") + " ") and not TABLE.match(line):
                    name = str(page.relative_to(ROOT))
                    found.append(Command(name, words.strip(), _needs(comment) or needs))
    return found


def _needs(comment: str) -> str:
    return comment.partition("needs")[2].strip(" :.")


# What other tests run, or what this very run is: how the command begins, and where below tests/.
ELSEWHERE = {
    "make test": "architecture/test_contracts.py::test_tool_is_content",
    "make style": "architecture/test_contributing.py::test_a_hook_formats_and_mends",
    "make quality": "architecture/test_contracts.py::test_tool_is_content",
    "make docs": "architecture/test_site.py::test_every_page_is_on_the_site",
    "make test-cluster": "cluster/test_calm.py::test_the_pipeline_runs_over_two_nodes",
    "ray start --head": "pipelines/test_whole_pipeline.py::cluster",
    "make submit": "cluster/nodes.py::submit_words",
    "RAY_AUTH_MODE=token .venv/bin/ray start": "cluster/nodes.py::start_worker",
    "eval": "pipelines/test_cli.py::test_a_shell_completes",
    "python deploy/mlflow/server.py": "cluster/nodes.py::start_services",
    "python docs/own_fusion.py": "architecture/test_quickstart.py::test_the_script",
    "python -m pipelines.reproduce": "mlflow_tracking/test_reproduce_predict.py::test_an_eval",
    "mlflow models serve": "mlflow_tracking/test_register.py::server",
    "python -m pipelines.shard shard.uri=": "shards/test_shards_object_store.py::test_the_stages",
    "python -m pipelines.train shard.uri=": "shards/test_shards_object_store.py::test_the_stages",
    "python -m pipelines.relocate": "mlflow_tracking/test_moved.py::test_from_rename",
}
SHELL = ("export ", "source ")  # what they set, a process of the tests has already


def to_run() -> list[Command]:
    """What no other test runs and nothing forbids, each once, in an order that works."""
    wanted = [
        command
        for command in commands()
        if not command.needs and not command.text.startswith((*SHELL, *ELSEWHERE))
    ]
    wanted.sort(key=lambda c: (c.page != "docs/start.md", not c.text.startswith("amr export")))
    return list({command.text.removeprefix(".venv/bin/"): command for command in wanted}.values())
