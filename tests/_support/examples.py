"""The worked examples of CONTRIBUTING.md, by what they add."""

import re
import types
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(
    r"### An? ([a-z ]+)\n.*?```python file=(\S+)\n(.*?)```\n\n"
    r"```python line=(\S+) table=(\S+)\n(.*?)\n(.*?)\n```",
    re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """One file to write, and the import and the entry to put into a table of another."""

    path: str
    source: str
    table_path: str
    table: str
    imported: str
    entry: str

    def add_to(self, root: Path) -> None:
        """Do in a copy of the project what a contributor would do."""
        (root / self.path).write_text(self.source)
        path = root / self.table_path
        lines = path.read_text().splitlines()
        last = max(i for i, line in enumerate(lines) if re.match(r"from components\.\w+", line))
        lines.insert(last + 1, self.imported)
        (start,) = [i for i, line in enumerate(lines) if re.match(rf"{self.table}\b.* = {{$", line)]
        lines.insert(start + 1, "    " + self.entry)
        path.write_text("\n".join(lines) + "\n")

    def module(self) -> types.ModuleType:
        """The file as a module, without a copy."""
        module = types.ModuleType(Path(self.path).stem)
        exec(compile(self.source, self.path, "exec"), module.__dict__)
        return module


def examples() -> dict[str, Example]:
    """By kind: "attack", "fusion", "backbone", "training method", "data set"."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return {kind: Example(*parts) for kind, *parts in EXAMPLE.findall(text)}
