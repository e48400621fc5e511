"""Mutants of a few lines, and a run over a project of two functions whose tests notice one."""

from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="optional: pip install -e '.[mutation]'")

from benchmarks import _mutants, mutation

SOURCE = '''
import log


def scale(x: int | None = 3, *, high=False) -> int | None:
    """Twice, or three times."""
    if x is None:
        raise ValueError("needs 1 number")
    log.info("scaled by %d", 2)
    seen.append(x)
    return clip(x * 2, low=0) if not high else max(x, 4)
'''


def changes(tmp_path: Path) -> list[tuple[str, str]]:
    (tmp_path / "m.py").write_text(SOURCE)
    places = _mutants.positions(SOURCE)
    made = [_mutants.make(tmp_path, "m.py", *place) for place in places]
    assert len({m.key for m in made}) == len(made)
    assert all(SOURCE.splitlines()[m.line - 1].strip() == m.was for m in made)
    for mutant in made:
        compile(mutant.code, "m.py", "exec")
    return [(m.operator, m.now) for m in made]


def test_what_is_changed_and_what_is_left_alone(tmp_path: Path) -> None:
    found = changes(tmp_path)
    assert ("DeleteStatement", "pass") in found
    assert ("DropKeyword", "return clip(x * 2,) if not high else max(x, 4)") in found
    assert ("SwapTwins", "return clip(x * 2, low=0) if not high else min(x, 4)") in found
    words = [now for _, now in found]
    assert not any("log" in now or "raise" in now or "number" in now for now in words)
    assert not any("int &" in now or "int -" in now for now in words)  # annotations
    numbers = [now for name, now in found if name == "NumberReplacer"]
    assert len(numbers) == 2 * 4  # 3, 2, 0 and 4, each one up and one down


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one module, of which the tests see the first function alone."""
    (tmp_path / "components").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "components" / "__init__.py").touch()
    (tmp_path / "components" / "m.py").write_text(
        "def add(a, b):\n    return a + b\n\n\ndef less(a, b):\n    return a - b\n"
    )
    (tmp_path / "tests" / "test_m.py").write_text(
        "from components.m import add, less\n\n\ndef test_add():\n    assert add(2, 3) == 5\n\n\n"
        "def test_broken_already():\n    assert less(3, 2) == 0\n"
    )
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    monkeypatch.setattr(mutation, "COPIED", ("components", "tests"))
    monkeypatch.setattr(mutation, "preload", lambda: None)  # it saves time in long runs alone
    monkeypatch.setattr(mutation, "EQUIVALENT", tmp_path / "mutants.yaml")
    monkeypatch.setattr(mutation, "GUARDS", {"components/*.py": ("one", ("tests/test_m.py",))})
    (tmp_path / "mutants.yaml").touch()
    return tmp_path


def test_a_run_counts_goes_on_and_knows_equivalents(project: Path, capsys) -> None:
    result = mutation.run(["--sample", "0"])
    figures = result.sides["one"]
    assert (figures["killed"], figures["survived"], figures["n"]) == (1, 1, 2)
    assert figures["low"] < 0.5 < figures["high"] and not result.holds
    words = capsys.readouterr().out
    assert "test_broken_already" in words  # fails on the code as it is, so it kills nothing
    assert "components/m.py:6" in words and "+    return a + b" in words
    assert (project / "components" / "m.py").read_text().count("-") == 1

    (project / "mutants.yaml").write_text(
        "- {file: components/m.py, was: return a - b, now: return a + b, reason: a test of it}\n"
    )
    again = mutation.run(["--sample", "0"])
    assert "1/" not in capsys.readouterr().out  # nothing is tried twice
    assert again.sides["one"]["equivalent"] == 1 and again.holds


def test_a_test_file_that_is_gone_is_named(project: Path) -> None:
    (project / "tests" / "test_m.py").unlink()
    with pytest.raises(ValueError, match=r"tests/test_m\.py, which is not there"):
        mutation.run([])


def test_every_module_is_counted_for_its_package() -> None:
    found = dict(mutation._targets(""))
    assert {package for package, _ in found.values()} == {
        "attacks", "models", "training", "evaluation", "datasets", "search", "gate",
    }  # fmt: skip
    assert found["components/attacks/pgd.py"][0] == "attacks"
