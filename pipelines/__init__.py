"""One module per DVC stage: `python -m pipelines.NAME [key=value ...]`."""

import os
from pathlib import Path


def _trust_token() -> None:
    """Join clusters with the token that this machine has, as `ray start` makes it by default.

    Ray asks for it on joining only when told so, and reads that from the environment once.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or path.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


_trust_token()
