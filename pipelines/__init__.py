"""One module per DVC stage: `python -m pipelines.NAME [key=value ...]`."""

import os
import sys
from pathlib import Path


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


_trust_token()
