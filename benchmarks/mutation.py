"""Mutation: how many small breaks of the core the tests notice. `python -m benchmarks mutation`.

Draws mutants (`_mutants.py`) of the packages below, tries one after the other in a copy of the
project, and runs for each the test files that guard its module. Prints killed and surviving ones by
package, with Wilson's interval of the share killed, and every survivor with file, line and diff. A
mutant that cannot be imported, and one that `mutants.yaml` knows to change no behaviour, count
neither way.

Options (after `--`): `--sample N` mutants in all (150; 0 = every one), `--seed S`,
`--only PACKAGE,PACKAGE`, `--new` to forget what an earlier call with the same sample found. A call
that was cut short goes on where it stopped.
"""

import argparse
import hashlib
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

from benchmarks._bench import ROOT, Result
from benchmarks._forked_tests import TIMEOUT, preload, run_tests
from benchmarks._mutants import Mutant, make, positions
from benchmarks._mutation_guards import GUARDS, LEFT_OUT
from components.evaluation.metrics import wilson

EXPLICIT = True
GOAL = 0.95
COPIED = (
    "benchmarks", "components", "deploy", "docs", "mlflow_tracking", "pipelines", "recipes",
    "tests", "params.yaml", "dvc.yaml", "pyproject.toml", "constraints.txt", "README.md",
    "CONTRIBUTING.md", "Makefile",
)  # fmt: skip
FAILED, NO_IMPORT = 1, 2  # pytest's codes: a test failed; tests cannot be collected
EQUIVALENT = Path(__file__).with_name("mutants.yaml")


def run(args: list[str]) -> Result:
    """The share of mutants that the tests kill."""
    options = _options(args)
    targets = dict(_targets(options.only))
    sample = draw(targets, options.sample, options.seed)
    folder = ROOT / "artifacts" / "mutation"
    folder.mkdir(parents=True, exist_ok=True)
    session = folder / f"{_digest(sample, targets)}.sqlite"
    if options.new:
        session.unlink(missing_ok=True)
    preload()
    with use_db(session) as db:
        if not db.num_work_items:
            db.add_work_items(_item(mutant) for mutant in sample)
        _try_all(db, sample, targets, folder)
        found = {job: result for job, result in db.results}
    return report(sample, targets, found)


def draw(targets: dict[str, tuple[str, Any]], count: int, seed: int) -> list[Mutant]:
    """`count` mutants of all there are, each as likely as any other; 0 = all of them."""
    every = [
        (path, *place) for path in sorted(targets) for place in positions((ROOT / path).read_text())
    ]
    chosen = random.Random(seed).sample(every, min(count, len(every))) if count else every
    return [make(ROOT, *place) for place in chosen]


def report(sample: Sequence[Mutant], targets: dict[str, Any], found: dict[str, WorkResult]) -> Any:
    """Tables by package, survivors with their diffs, and the figure that the goal is held to."""
    known = {_words(e): e["reason"] for e in yaml.safe_load(EQUIVALENT.read_text()) or ()}
    counts: dict[str, dict[str, int]] = {}
    survivors = []
    for mutant in sample:
        row = counts.setdefault(
            targets[mutant.path][0],
            {"killed": 0, "timeout": 0, "survived": 0, "equivalent": 0, "no import": 0},
        )
        result = found[mutant.key]
        if result.worker_outcome is WorkerOutcome.SKIPPED:
            row["no import"] += 1
        elif result.test_outcome is not TestOutcome.SURVIVED:
            row["timeout" if result.output == "timeout" else "killed"] += 1
        elif (mutant.path, mutant.was, mutant.now) in known:
            row["equivalent"] += 1
        else:
            row["survived"] += 1
            survivors.append(mutant)
    total = {
        name: sum(row[name] for row in counts.values()) for name in next(iter(counts.values()))
    }
    for mutant in survivors:
        print(f"\nsurvived: {mutant.path}:{mutant.line} ({mutant.operator})\n{mutant.diff}")
    sides = {name: _figures(row) for name, row in sorted(counts.items())}
    sides["all"] = _figures(total)
    return Result(
        "mutation",
        sides["all"]["share"],
        GOAL,
        ">=",
        sides,
        notes=f"{len(sample)} mutants drawn; share = killed of those that change behaviour",
        details={"survivors": [f"{m.path}:{m.line} {m.was} -> {m.now}" for m in survivors]},
    )


def _figures(row: dict[str, int]) -> dict[str, Any]:
    killed = row["killed"] + row["timeout"]
    n = killed + row["survived"]
    low, high = wilson(killed, n)
    return {**row, "n": n, "share": killed / n if n else 1.0, "low": low, "high": high}


def _try_all(db: WorkDB, sample: Sequence[Mutant], targets: dict[str, Any], folder: Path) -> None:
    pending = {item.job_id for item in db.pending_work_items}
    waiting = [mutant for mutant in sample if mutant.key in pending]
    if not waiting:
        return
    copy = folder / "project"
    _copy_project(copy)
    log = folder / "tests.log"
    base = {files: _baseline(copy, files, log) for files in {targets[m.path][1] for m in waiting}}
    for number, mutant in enumerate(waiting, 1):
        files = targets[mutant.path][1]
        seconds, failing = base[files]
        path = copy / mutant.path
        original = path.read_text()
        started = time.monotonic()
        try:
            path.write_text(mutant.code)
            code = run_tests(copy, files, log, timeout=15 + 6 * seconds, skip=failing)
        finally:
            path.write_text(original)
        result = _result(code, log, mutant)
        db.set_result(mutant.key, result)
        word = result.test_outcome.value if result.test_outcome else "no import"
        print(
            f"{number}/{len(waiting)} {word:9} {time.monotonic() - started:5.1f} s "
            f"{mutant.path}:{mutant.line} {mutant.operator}",
            flush=True,
        )


def _result(code: int, log: Path, mutant: Mutant) -> WorkResult:
    if code == NO_IMPORT:
        return WorkResult(WorkerOutcome.SKIPPED, diff=mutant.diff)
    if code == TIMEOUT:
        return WorkResult(WorkerOutcome.NORMAL, "timeout", TestOutcome.KILLED, mutant.diff)
    words = log.read_text(errors="replace")
    if code not in (0, FAILED) and code > 0:
        # Neither passed nor failed: the verdict of a broken installation must not count as a kill.
        raise RuntimeError(
            f"pytest ended with code {code} on {mutant.path}:{mutant.line}:\n{words}"
        )
    outcome = TestOutcome.KILLED if code else TestOutcome.SURVIVED
    return WorkResult(WorkerOutcome.NORMAL, words, outcome, mutant.diff)


def _baseline(copy: Path, files: tuple[str, ...], log: Path) -> tuple[float, tuple[str, ...]]:
    """Seconds that the files take on the code as it is, and tests that fail even so."""
    failing: tuple[str, ...] = ()
    while True:
        started = time.monotonic()
        code = run_tests(copy, files, log, timeout=600, skip=failing, whole=True)
        if code == 0:
            return time.monotonic() - started, failing
        words = log.read_text(errors="replace")
        bad = [row.split()[1] for row in words.splitlines() if row.startswith("FAILED ")]
        if code != 1 or not bad:
            raise RuntimeError(f"{' '.join(files)} do not run on the unchanged code:\n{words}")
        for name in bad:
            print(f"left out, as it fails on the unchanged code: {name}", flush=True)
        failing += tuple(bad)


def _copy_project(copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        elif source.exists():
            shutil.copyfile(source, copy / name)


def _targets(only: str) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
    """(file, (package, its test files)) of all that is mutated."""
    for path in sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("**/*.py")):
        if path.startswith(("artifacts/", ".")) or path.endswith("__init__.py") or path in LEFT_OUT:
            continue
        guards = next((g for pattern, g in GUARDS.items() if fnmatch(path, pattern)), None)
        if guards is None or (only and guards[0] not in only.split(",")):
            continue
        missing = [file for file in guards[1] if not (ROOT / file).is_file()]
        if missing:
            raise ValueError(f"benchmarks/mutation.py names {missing[0]}, which is not there")
        yield path, guards


def _item(mutant: Mutant) -> WorkItem:
    place = (mutant.line, 0), (mutant.line, 1)
    spec = MutationSpec(mutant.path, mutant.operator, mutant.occurrence, *place)
    return WorkItem.single(mutant.key, spec)


def _digest(sample: Sequence[Mutant], targets: dict[str, Any]) -> str:
    """Changes with the sample, the mutated code, and the tests."""
    files = sorted({file for _, files in targets.values() for file in files} | set(targets))
    digest = hashlib.sha256(repr([mutant.key for mutant in sample]).encode())
    for file in files:
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()[:16]


def _words(entry: dict[str, str]) -> tuple[str, str, str]:
    return entry["file"], entry["was"], entry["now"]


def _options(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mutation --")
    parser.add_argument("--sample", type=int, default=150, help="mutants in all; 0 = every one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="packages, such as attacks,models")
    parser.add_argument("--new", action="store_true", help="forget earlier results of the sample")
    return parser.parse_args(args)
