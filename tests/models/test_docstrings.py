"""Every public function over tensors names shapes, in the letters of `components/batch.py`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "components" / "models").rglob("*.py")) + [ROOT / "components" / "batch.py"]
SHAPE = re.compile(r"\[(\d|[BCTHWVMSKNO][\w']*\b|25|parts)[^\]]*\]|\bscalar\b")
# Of a class or a single number each, or the same tensors elsewhere: their shapes are no news.
SHAPELESS = {"Batch.to", "load_backbone"}


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


def _has_tensors(node: ast.FunctionDef) -> bool:
    hints = [a.annotation for a in [*node.args.args, *node.args.kwonlyargs]] + [node.returns]
    words = " ".join(ast.unparse(hint) for hint in hints if hint is not None)
    return re.search(r"\b(Tensor|Features|ModelOutput)\b", words) is not None


FUNCTIONS = [
    pytest.param(node, id=f"{path.relative_to(ROOT)}:{name}")
    for path in FILES
    for name, node in _public(ast.parse(path.read_text()).body)
    if _has_tensors(node) and name not in SHAPELESS
]


@pytest.mark.parametrize("node", FUNCTIONS)
def test_shapes_are_in_the_docstring(node: ast.FunctionDef) -> None:
    docstring = ast.get_docstring(node) or ""
    assert SHAPE.search(docstring), f"no shape in {docstring!r}"


def test_there_is_something_to_check() -> None:
    names = {str(parameter.id).rsplit(":")[-1] for parameter in FUNCTIONS}
    assert {"TwoStream.forward", "MMTM.forward", "Reweighter.forward", "person_mean"} <= names
    assert SHAPE.search("[B, C] -> [B, K]") and not SHAPE.search("all values [the list], shaped")
