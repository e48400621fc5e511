"""The one place that reaches into MLflow behind its public API: answers to malformed requests.

MLflow's scoring server calls its own parser, which raises plain Python errors for a missing content
type or for JSON of an odd form (`{"dataframe_split": 5}`); they reach the caller as "Internal
Server Error" without a reason (https://github.com/mlflow/mlflow/issues/3354). A model sees a
request only after the parser, and the server takes no handlers, so no public API can mend this.
"""

import logging
import sys
from importlib.metadata import version
from typing import Any

log = logging.getLogger(__name__)

KNOWN = "3.17."  # versions of MLflow that this was read and tested with


def answer_malformed_requests() -> None:
    """Let the scoring server of this process answer 400 with the reason instead of 500.

    Does nothing outside a scoring server, nor under another MLflow, where 500 may remain.
    """
    server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")
    if server is None or hasattr(server, "_plain_invocations"):
        return
    if not version("mlflow").startswith(KNOWN):
        log.warning("malformed requests may be answered by 500: MLflow is not %sx", KNOWN)
        return
    plain = server._plain_invocations = server.invocations

    def invocations(data: Any, content_type: str | None, model: Any, schema: Any) -> Any:
        try:
            return plain(data, content_type or "no content type", model, schema)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"the request cannot be read: {type(error).__name__}: {error}"
            return server.InvocationsResponse(reason, 400, "text/plain")

    server.invocations = invocations
