"""`amr doctor`: what is missing on this machine, or wrong with its data, before anything long runs.

Each check looks at one thing and says what it found; what is not as it should be comes with a fix.
A check ends in seconds, and one that breaks is a finding itself: broken installations are what this
command is for, so nothing outside the standard library is imported before its check.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from components.timeouts import OutOfTime, in_time
from pipelines import _checks_machine as machine
from pipelines import _checks_project as project
from pipelines._findings import OK, PROBLEM, STATES, WARN, Context, Finding
from pipelines._terminal import ended_politely, painted

CHECKS: tuple[tuple[str, Callable[[Context], Iterable[Finding]], float], ...] = (
    ("Python", machine.python, 5.0),
    ("packages", machine.packages, 30.0),
    ("git", project.git, 30.0),
    ("recipe", project.recipe, 30.0),
    ("torch", machine.torch_and_gpus, 120.0),  # its first import from a slow disk
    ("video", machine.video, 30.0),
    ("disk", machine.disk, 10.0),
    ("data", project.data, 120.0),  # walks all names of a large data set
    ("DVC", project.dvc, 90.0),
    ("MLflow", project.mlflow, 30.0),
    ("Ray", project.ray, 30.0),
)
COLOURS = {OK: "green", WARN: "yellow", PROBLEM: "red"}


def main(argv: list[str] | None = None) -> int:
    """Say what is missing here or wrong. Status 0: no problem; 1: at least one."""
    parser = argparse.ArgumentParser(
        prog="amr doctor", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. recipe=ntu60")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--params", default=str(project.ROOT / "params.yaml"), help="settings file")
    args = parser.parse_intermixed_args(argv)
    context = Context(project.ROOT, args.params, tuple(args.overrides))
    found = []
    for name, check, seconds in CHECKS:
        for finding in found_in_time(name, check, context, seconds):
            found.append(finding)
            if not args.json:
                show(finding)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        print(summary(found))
    return int(any(finding.state == PROBLEM for finding in found))


def found_in_time(
    name: str, check: Callable[[Context], Iterable[Finding]], context: Context, seconds: float
) -> list[Finding]:
    """What the check finds, or that it broke or had found nothing after `seconds`."""
    try:
        return in_time(seconds, lambda: list(check(context)), name)
    except OutOfTime:
        fix = "a disk or server that does not answer? try again when it does"
        return [Finding(name, WARN, f"not known after {seconds:g} s", fix)]
    except Exception as error:  # noqa: BLE001 - whatever breaks a check is what it has found
        return [broken(name, error)]


def broken(name: str, error: Exception) -> Finding:
    """The finding for a check that ended with an exception."""
    from components.config import ConfigError
    from components.errors import UserError

    text = " ".join(str(error).split())
    if isinstance(error, ConfigError) and name != "recipe":
        return Finding(name, WARN, "not checked: the settings cannot be read", "see recipe above")
    if isinstance(error, UserError):
        said, semicolon, fix = text.partition("; ")
        return Finding(name, PROBLEM, said, fix if semicolon else "correct it in params.yaml")
    if isinstance(error, ImportError):
        return Finding(name, PROBLEM, text, machine.INSTALL)
    fix = "if the packages above are in order, report it with this line"
    return Finding(name, PROBLEM, f"the check broke: {type(error).__name__}: {text}", fix)


def show(finding: Finding) -> None:
    """Two lines at most: what was found, and the fix."""
    state = painted(f"{finding.state:<8}", COLOURS[finding.state])
    print(f"{state} {finding.check:<9} {finding.found}", flush=True)
    if finding.fix:
        print(f"{'':<19}fix: {finding.fix}", flush=True)


def summary(found: Sequence[Finding]) -> str:
    """How many findings there are of each state."""
    counts = {state: sum(f.state == state for f in found) for state in STATES}
    return f"\n{counts[OK]} ok, {counts[WARN]} to look at, {counts[PROBLEM]} problems"


if __name__ == "__main__":
    sys.exit(ended_politely("amr doctor", main))
