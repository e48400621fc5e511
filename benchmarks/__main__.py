"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named.

A benchmark is a module here with `run(args: list[str]) -> Result`. Heavy ones say `EXPLICIT = True`
and run only when named.
"""

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks._bench import finish


def names() -> list[str]:
    """All benchmarks, by module name."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def main(argv: list[str]) -> int:
    """Run what is named (further words after `--` go to the benchmark), or all."""
    wanted, _, extra = " ".join(argv).partition(" -- ")
    chosen = wanted.split()
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    status = 0
    for name in chosen or names():
        module = importlib.import_module(f"benchmarks.{name}")
        if not chosen and getattr(module, "EXPLICIT", False):
            print(f"{name}: takes long; run it by name: make bench NAME={name}")
            continue
        status |= finish(module.run(extra.split()))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
