"""The lists behind `make mutate` speak of code and tests that are there."""

from fnmatch import fnmatch
from pathlib import Path

import yaml

from benchmarks._mutation_guards import GUARDS, LEFT_OUT

ROOT = Path(__file__).parents[2]
KNOWN = yaml.safe_load((ROOT / "benchmarks" / "mutants.yaml").read_text())


def test_a_known_mutant_changes_a_line_that_is_there():
    for entry in KNOWN:
        lines = [line.strip() for line in (ROOT / entry["file"]).read_text().splitlines()]
        assert entry["was"] in lines and entry["was"] != entry["now"], entry
        assert entry["reason"] and any(fnmatch(entry["file"], pattern) for pattern in GUARDS)


def test_guards_and_modules_exist():
    for pattern, (_, tests) in GUARDS.items():
        assert list(ROOT.glob(pattern)), pattern
        assert not [test for test in tests if not (ROOT / test).is_file()], pattern
    assert not [path for path in LEFT_OUT if not (ROOT / path).is_file()]
