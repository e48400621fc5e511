"""An S3 server (moto) that answers 503 while a file exists: `python s3.py ADDRESS PORT FILE`."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>"


def main(address: str, port: str, flag: str) -> None:
    """Serve until killed."""
    store, down = DomainDispatcherApplication(create_backend_app), Path(flag)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if not down.exists():
            return store(environ, start)
        start("503 Slow Down", [("Content-Type", "application/xml")])
        return [SLOW_DOWN]

    run_simple(address, int(port), answer, threaded=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
