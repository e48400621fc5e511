"""Which MLflow store a run goes to, and a client that gives up soon when it does not answer."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.address import masked, parse_address, probe
from components.config.evaluate import TrackingSection
from components.errors import UserError
from components.files import waited_lock
from mlflow_tracking.moved import artifacts_of, check_not_moved
from mlflow_tracking.view import VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parent.parent
REQUEST_SECONDS = "30"
EXPERIMENT_TAGS = {
    # The UI shows its pages for training, not those for language models.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Robust action recognition from video and skeletons. Compare: add "
        "`?viewStateShareKey=robustness` to the address of the runs; each evaluation has its table "
        "in its description. All names: docs/mlflow.md."
    ),
    **VIEW_TAG,
}


def tracking_uri(tracking: TrackingSection, root: Path = ROOT) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.uri`, else a sqlite file in the project's folder.

    The path is absolute, since Ray's workers run in other folders. MLflow's own default, a folder
    of files, raises from MLflow 3.13 on: UserError here, before anything long begins.
    """
    uri = (os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri).strip()
    scheme = uri.partition(":")[0].partition("+")[0] if ":" in uri else ""
    if uri and scheme in ("", "file"):
        raise UserError(
            f"{uri} is a folder of files, which MLflow no longer writes to; set tracking.uri (or "
            "MLFLOW_TRACKING_URI) to sqlite:///mlflow.db or to a server, http://HOST:PORT"
        )
    return parse_address(uri or "sqlite:///mlflow.db", "tracking", root).uri


redact = masked


def reachable(uri: str) -> bool:
    """Whether the server's or database's port answers; always true for a database file."""
    address = parse_address(uri, "tracking")
    return not address.host or not probe(address)


class Unreachable(ConnectionError):
    """The tracking server does not answer."""


def require_answer(uri: str) -> None:
    """Raises Unreachable when no port answers, UserError for a sqlite store that has moved."""
    if not reachable(uri):
        raise Unreachable(f"{redact(uri)} does not answer")
    if file := sqlite_file(uri):
        check_not_moved(file)


def is_unreachable(error: Exception) -> bool:
    """Whether `error` says that the server could not be reached, not that the request was wrong."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, RequestException):
        return True
    temporary = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR"}
    if isinstance(error, MlflowException) and error.error_code in temporary:
        return "API request" in str(error) or error.error_code != "INTERNAL_ERROR"
    return False


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; None for any other."""
    return parse_address(uri, "tracking").local if uri.startswith("sqlite") else None


def turn(uri: str) -> AbstractContextManager[Any]:
    """A lock between the processes that write to one sqlite file; nothing for a server.

    Two processes that create the tables at once break them, and sqlite answers a second writer
    with "database is locked".
    """
    file = sqlite_file(uri)
    return waited_lock(file.with_name(file.name + ".lock")) if file else nullcontext()


def quiet() -> None:
    """Keep MLflow's links, bars and notes on its tables out of the stages' output."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def client(uri: str) -> "MlflowClient":
    """A client whose requests time out in seconds: repeating them is `publish.py`'s work.

    MLflow's defaults (seven retries of two minutes) would hold a finished run for a quarter of
    an hour. Values already in the environment stay.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    quiet()
    # Seconds to import; a stage that logs nothing should not pay for it.
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(mlflow: "MlflowClient", uri: str, name: str) -> str:
    """The experiment's id; it is made on first use.

    Artifacts lie in `mlartifacts/` beside a sqlite file; a server knows its own place.
    """
    from mlflow.exceptions import MlflowException

    found = mlflow.get_experiment_by_name(name)
    if found is None:
        file = sqlite_file(uri)
        place = artifacts_of(file).as_uri() if file else None
        try:
            return mlflow.create_experiment(name, artifact_location=place, tags=EXPERIMENT_TAGS)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = mlflow.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == "deleted":
        raise MlflowException(
            f"the experiment {name!r} is deleted; restore it (mlflow experiments restore) "
            "or set tracking.experiment to another name"
        )
    return found.experiment_id
