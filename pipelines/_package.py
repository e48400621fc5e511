"""What of the project travels to a cluster: the files that git tracks, and the commit's name."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.address import is_text, readable
from components.errors import UserError

GIT_SECONDS = 60.0
# Ray would leave out what .gitignore matches, though git may track it (`git add -f`).
WHOLE = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"


@dataclass(frozen=True)
class Package:
    """A copy of the project's tracked files.

    untracked: code that stays behind; unnameable: tracked files that do, since their names are no
    UTF-8, which Ray's archive of the project cannot hold
    """

    folder: Path
    files: int
    bytes: int
    commit: str
    untracked: tuple[str, ...]
    unnameable: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Lines for the user: what is sent, what is not."""
        lines = [f"sending {self.files} files that git tracks, {self.bytes / 1e6:.1f} MB"]
        if self.unnameable:
            lines.append(
                f"{len(self.unnameable)} files have names in another encoding than UTF-8 and stay "
                f"here ({_some(self.unnameable)}); rename them to send them"
            )
        if self.untracked:
            lines.append(
                f"{len(self.untracked)} files of code are not tracked and stay here "
                f"({_some(self.untracked)}); `git add` sends them"
            )
        return lines


@contextlib.contextmanager
def package(root: Path, aside: Path | None = None) -> Iterator[Package]:
    """The tracked files as they lie in the working tree, in a folder that goes with the block.

    Ray sends the folder within the block, and sends the whole of it. So neither results nor raw
    data, which must not be passed on, can travel; links are left out, since what they lead to is
    not in git. What lies in the folder `aside`, a workspace, is not named as code that stays.
    UserError where git tracks nothing here.
    """
    names = _git(root, "ls-files", "-z", "--cached", "--deduplicate")
    if not names:
        raise UserError(
            f"{root} is no git repository, or git tracks nothing in it, so nobody knows what of it "
            "may travel to a cluster; work in a clone, or run `git init && git add -A` where "
            ".gitignore is the project's"
        )
    code = ["*.py", "*.yaml"]
    if aside and aside != root and aside.is_relative_to(root):
        code.append(f":(exclude,literal){aside.relative_to(root)}")
    others = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *code)
    count = size = 0
    unnameable = []
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        for name in names:
            source, target = root / name, Path(folder) / name
            if _through_link(root, name) or not source.is_file():
                continue
            if not is_text(name):
                unnameable.append(name)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            count, size = count + 1, size + source.stat().st_size
        with _environment(WHOLE, "1"):
            yield Package(
                Path(folder), count, size, _commit(root), tuple(others or ()), tuple(unnameable)
            )


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(map(readable, names[:3])) + (" ..." if len(names) > 3 else "")


def _through_link(root: Path, name: str) -> bool:
    parts = Path(name).parts
    return any(root.joinpath(*parts[: i + 1]).is_symlink() for i in range(len(parts)))


def _commit(root: Path) -> str:
    """The commit that a job's lineage names, marked when the working tree differs from it."""
    found = _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return found[0].strip() if found else ""


def _git(root: Path, *words: str) -> list[str] | None:
    """What git prints, cut at NUL; None where it fails, as without a repository or a commit."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    return [name for name in os.fsdecode(done.stdout).split("\0") if name]
