"""One module per DVC stage: `python -m pipelines.NAME [key=value ...]`."""

import _thread
import os
import sys
import threading
from pathlib import Path
from types import TracebackType


def _trust_token() -> None:
    """Join clusters with the token that this machine has, as `ray start` makes it by default.

    Ray asks for it on joining only when the environment says so, which it reads on import. Once
    Ray is imported, saying so would reach the processes that it starts and not this one.
    """
    if "ray" in sys.modules:
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or path.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _say_little() -> None:
    """Leave out what libraries say of themselves and nobody at the screen can act on.

    A search or a training has more processes than the machine has cores, most of them idle; a new
    store gets its tables. Both libraries read this on import.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def _no_traceback_of_ctrl_c() -> None:
    """Ctrl-C during the seconds in which a command imports its libraries is no fault either."""
    plain = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("stopped", file=sys.stderr)
        else:
            plain(kind, error, trace)

    sys.excepthook = hook


def _keep_ctrl_c() -> None:
    """Ctrl-C that arrives inside a finaliser or a callback is asked for again, and not lost.

    Python can only report an exception there, and libraries run many while they are imported.
    """
    plain = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            # Not at once: it would arrive in this very function and be lost as well.
            again = threading.Timer(0.02, _thread.interrupt_main)
            again.daemon = True
            again.start()
        else:
            plain(lost)

    sys.unraisablehook = hook


_trust_token()
_say_little()
if sys.argv[:1] == ["-m"]:  # how Python calls a command while it looks for its module
    _no_traceback_of_ctrl_c()
if sys.argv[:1] == ["-m"] or Path(sys.argv[0]).name == "amr":
    _keep_ctrl_c()
