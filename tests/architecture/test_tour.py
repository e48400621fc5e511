"""The tour of docs/architecture.md leads through code that is there, and stays short."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TOUR = PAGE.partition("## One clip, from file to registry")[2].partition("\n## ")[0]
STOPS = re.findall(r"`((?:\w+/)+\w+\.py)(?::(\w+))?`", TOUR)


def test_the_tour_is_under_two_pages_and_passes_every_stage():
    assert len(TOUR.split()) < 1000 and len(STOPS) > 25
    for stage in ("index", "shard", "train", "evaluate", "register"):
        assert f"(`{stage}`" in TOUR


@pytest.mark.parametrize(("file", "name"), STOPS, ids=[":".join(stop) for stop in STOPS])
def test_a_stop_is_there(file: str, name: str):
    body = ast.parse((ROOT / file).read_text()).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {ast.unparse(n.target) for n in body if isinstance(n, ast.AnnAssign)}
    names |= {ast.unparse(n.targets[0]) for n in body if isinstance(n, ast.Assign)}
    assert not name or name in names
