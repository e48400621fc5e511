"""How the command-line tools print and end: colour on terminals alone, one line for what is wrong.

Imports nothing heavy: `amr --help` must answer at once.
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

INTERRUPTED = 130  # 128 + SIGINT, what shells report of a command that Ctrl-C ended
STYLES = {"bold": "1", "green": "32", "yellow": "33", "red": "31"}


def spell_out_odd_names() -> None:
    """From now on standard output and error spell out what they cannot encode, byte by byte.

    Names of files may hold bytes that are no UTF-8, at which Python's standard output ends with an
    exception. `components.address.readable` is for names that are printed on purpose; this is for
    those inside messages.
    """
    codecs.register_error("amr.bytes", _spelt_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="amr.bytes")


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    raw = error.object[error.start : error.end].encode("utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in raw), error.end


def painted(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style of STYLES where `stream` (standard output) takes colours."""
    return f"\033[{STYLES[style]}m{text}\033[0m" if coloured(stream or sys.stdout) else text


def coloured(stream: TextIO) -> bool:
    """Whether it is a terminal; NO_COLOR (no-color.org) and TERM=dumb switch colours off."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and stream.isatty()


def colour_ray() -> None:
    """Ray colours the names of its processes, in files too; here as `coloured` says."""
    if not coloured(sys.stderr):
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")


def interrupted(name: str, how_to_go_on: str = "") -> int:
    """The status of a command that Ctrl-C has ended, after a line that says so."""
    before = "\n" if sys.stderr.isatty() else ""  # behind the terminal's own ^C
    print(f"{before}{name}: stopped" + (how_to_go_on and f"; {how_to_go_on}"), file=sys.stderr)
    return INTERRUPTED


def ended_politely(name: str, work: Callable[[], int]) -> int:
    """The exit status of `work()`, with one line for each way in which a user ends it.

    A UserError is theirs to mend (status 2); Ctrl-C is no fault (130); a reader that has gone, as
    in `amr inspect CLIP | head -3`, is none either. Other exceptions keep their traceback.
    """
    from components.errors import UserError

    spell_out_odd_names()
    try:
        status = work()
        sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted(name)
    except BrokenPipeError:
        # The interpreter flushes once more on its way out, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


@contextlib.contextmanager
def picture_errors(path: Path) -> Iterator[None]:
    """UserError for a picture that cannot be written: no such folder, no such format."""
    from components.errors import UserError

    try:
        yield
    except (OSError, ValueError) as error:  # matplotlib knows formats by the name's ending
        said = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written: {said}; name a .png file") from error
