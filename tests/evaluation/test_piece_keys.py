"""A piece of an evaluation is done again when any code that decides its verdicts has changed."""

import shutil
from pathlib import Path

import pytest

import components
from components.attacks import Budget, ThreatModel
from components.evaluation.piece import Piece, key_of
from components.fingerprint import code_fingerprint, deciding_files

PIECE = Piece(
    kind="suite", checkpoint="a", twin="", shards="b", cache_gb=0.0, rows=(0,), classes=(1,),
    threat=ThreatModel(rgb=Budget("Linf", 0.01)), suite="standard", seed=0, factors=(),
    export=False, cuda=False, folder="c",
)  # fmt: skip


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the library's source, which the fingerprint reads in place of the real one."""
    root = tmp_path / "components"
    shutil.copytree(Path(components.__file__).parent, root)
    monkeypatch.setattr(components, "__file__", str(root / "__init__.py"))
    code_fingerprint.cache_clear()
    yield root
    code_fingerprint.cache_clear()


def key() -> str:
    code_fingerprint.cache_clear()
    return key_of(PIECE, {})


def test_every_file_that_decides_a_verdict_changes_the_key(source):
    before = key()
    for file in deciding_files():
        text = file.read_text()
        file.write_text(text + "\n# changed\n")
        assert key() != before, file.relative_to(source)
        file.write_text(text)
    assert key() == before


def test_code_that_only_reads_results_leaves_the_key_alone(source):
    before = key()
    for name in ("reporting/page.py", "sample/render.py"):
        with (source / name).open("a") as file:
            file.write("\n# changed\n")
    assert key() == before
