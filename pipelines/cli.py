"""`amr COMMAND ...`: every stage and tool under one name; `python -m pipelines` is the same.

Nothing is imported before it is known which command is meant, so that help is there at once.
"""

import runpy
import sys
from collections.abc import Sequence

from pipelines._commands import COMMANDS, GROUPS
from pipelines._terminal import ended_politely, painted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names, with the other words; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help"):
        return ended_politely("amr", _help)
    if name not in COMMANDS:
        print(f"amr: {_unknown(name)}", file=sys.stderr)
        return 2
    return ended_politely(f"amr {name}", lambda: _run(name, words[1:]))


def _run(name: str, words: Sequence[str]) -> int:
    """The command's module as `python -m` would run it, in this process."""
    before = sys.argv
    sys.argv = [name, *words]
    try:
        # `__main__` is replaced as well: what Ray pickles and worker processes look up is the same.
        runpy.run_module(COMMANDS[name].path, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"no command {name!r}{hint} `amr --help` lists them"


def _help() -> int:
    print("usage: amr COMMAND [key=value ...]     (or: python -m pipelines COMMAND ...)\n")
    print("Adversarially robust action recognition from video and skeletons.")
    for title, commands in GROUPS.items():
        print(f"\n{painted(title, 'bold')}")
        for command in commands:
            print(f"  {command.name:<11} {command.does}")
            print(f"  {'':<11}   {command.example}")
    print("\n`amr COMMAND --help` has a command's options and all settings; docs/cli.md has more.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
