"""The registry: a version with everything that is to be known of it, and the champion's alias.

A version holds the checkpoint (safetensors and JSON), the code that reads it, its evaluation with
the per-clip records, its lineage and its card. Nothing in it is a pickle.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from components.checkpoint import CONFIG, WEIGHTS
from components.errors import UserError
from mlflow_tracking import lineage, names, store
from mlflow_tracking.gate import Decision, Evaluated
from mlflow_tracking.serving import SETTINGS
from mlflow_tracking.signature import input_example, signature
from mlflow_tracking.store import ROOT

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
REQUIRED = (
    *("mlflow", "torch", "numpy", "pandas", "pyarrow", "av", "pydantic", "PyYAML"),
    *("safetensors", "pillow", "psutil", "Jinja2", "scipy"),
)
DESCRIPTION_LIMIT = 4900


@dataclass(frozen=True)
class Candidate:
    """What is to be registered. Files are read from disk; nothing of them is executed.

    checkpoint: folder of `components.checkpoint`; evaluation, records: what evaluate wrote
    shards: settings of `shards.json`
    """

    model: str
    checkpoint: Path
    evaluation: Path
    records: Path
    shards: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, str]:
        """Hashes by which a version is recognised, so that a second `register` adds none."""
        return {
            "checkpoint_sha256": file_sha(self.checkpoint / WEIGHTS),
            "evaluation_sha256": file_sha(self.evaluation),
        }

    def evaluated(self) -> Evaluated:
        """Its figures for the gate."""
        summary = json.loads(self.evaluation.read_text())
        return Evaluated("this model", summary, read_records(self.records))


def file_sha(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_records(path: Path) -> pa.Table | None:
    """The per-clip records; None without them."""
    if not path.is_file():
        return None
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return table.select(["clip_id", "cell", "correct"])


def find_version(mlflow: "MlflowClient", name: str, identity: Mapping[str, str]) -> str | None:
    """The version that was made of the very same checkpoint and evaluation."""
    for version in mlflow.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(key) == value for key, value in identity.items()):
            return str(version.version)
    return None


def champion(mlflow: "MlflowClient", name: str) -> tuple[str, Evaluated] | None:
    """The present champion's version and figures; None when there is none.

    A champion that somebody made by other means has no evaluation, and nothing can be compared.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        version = str(mlflow.get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    label = f"champion (version {version})"
    with TemporaryDirectory() as temporary:
        try:
            uri = f"models:/{name}/{version}/artifacts/evaluation"
            folder = Path(download_artifacts(artifact_uri=uri, dst_path=temporary))
            summary = json.loads((folder / "summary.json").read_text())
            records = read_records(folder / "records.arrow")
        except (MlflowException, OSError, ValueError) as error:
            log.warning("%s of %s has no evaluation to compare with: %s", label, name, error)
            return version, Evaluated(label, {}, None)
    return version, Evaluated(label, summary, records)


def fetch(tracking_uri: str, model_uri: str, into: Path) -> tuple[Path, Path]:
    """Weights and settings of a registered version, and nothing that could be executed.

    The checkpoint's folder and the settings file, copied to `into`. Raises ValueError when there
    is no such model or it is not one of this project's.
    """
    store.require_answer(tracking_uri)
    store.quiet()
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    found = []
    for part in ("checkpoint", SETTINGS):
        try:
            uri = f"{model_uri}/artifacts/{part}"
            found.append(Path(download_artifacts(artifact_uri=uri, dst_path=str(into))))
        except (MlflowException, OSError) as error:
            raise UserError(
                f"{model_uri}: no model of this project ({store.redact(str(error))}); "
                "`python -m pipelines.register` makes one, or name a checkpoint folder with --model"
            ) from error
    return found[0], found[1]


def in_use(mlflow: "MlflowClient", name: str, model_id: str) -> bool:
    """Whether a version was made of this model of MLflow's, which must not change then."""
    versions = mlflow.search_model_versions(f"name = '{name}'")
    return any(version.source == f"models:/{model_id}" for version in versions)


def add_version(
    candidate: Candidate,
    *,
    name: str,
    model_id: str,
    uri: str,
    card: str,
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    tags: Mapping[str, Any],
) -> str:
    """Put the files into MLflow's model `model_id` and register it as a new version of `name`."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with TemporaryDirectory() as temporary:
        files = _stage_files(candidate, Path(temporary), card, facts)
        # In no run: within one, MLflow would link that run's figures again, on no data set.
        info = mlflow.pyfunc.log_model(
            name=candidate.model,
            model_id=model_id,
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts=files,
            code_paths=[str(_code(Path(temporary), package)) for package in PACKAGES],
            signature=signature(),
            input_example=input_example(config["model"]),
            pip_requirements=requirements(),
            metadata={"format": "safetensors+json", **candidate.identity},
        )
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    check_pickle_free(client, info.model_id)
    found = mlflow.register_model(
        info.model_uri, name, tags=names.texts(tags, names.TAG_LIMIT), await_registration_for=60
    )
    client.update_model_version(name, found.version, description=card[:DESCRIPTION_LIMIT])
    return str(found.version)


def assign_aliases(mlflow: "MlflowClient", name: str, version: str, decision: Decision) -> None:
    """Name the version challenger, record the decision, and champion if it was promoted."""
    outcome = "passed" if decision.promote else "failed"
    mlflow.set_registered_model_alias(name, CHALLENGER, version)
    mlflow.set_model_version_tag(name, version, "gate", outcome)
    reasons = names.text("gate.reasons", "; ".join(decision.reasons), names.TAG_LIMIT)
    mlflow.set_model_version_tag(name, version, "gate.reasons", reasons)
    if decision.promote:
        mlflow.set_registered_model_alias(name, CHAMPION, version)


def check_pickle_free(mlflow: "MlflowClient", model_id: str) -> None:
    """ValueError when a logged model holds a file that would be unpickled on loading."""
    folders, bad = [""], []
    while folders:
        for entry in mlflow.list_logged_model_artifacts(model_id, folders.pop() or None):
            if entry.is_dir:
                folders.append(entry.path)
            elif Path(entry.path).suffix in PICKLES:
                bad.append(entry.path)
    if bad:
        raise UserError(f"model {model_id} holds {bad[0]}, which loads by unpickling; refused")


PACKAGES = ("components", "mlflow_tracking")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill")


def requirements() -> list[str]:
    """What a server of the model needs, at the versions in use here."""
    pairs = ((package, lineage.version(package)) for package in REQUIRED)
    return [f"{package}=={found.partition('+')[0]}" for package, found in pairs if found]


def _code(folder: Path, package: str) -> Path:
    """A copy of a package without what Python and editors leave in it."""
    return Path(
        shutil.copytree(
            ROOT / package,
            folder / "code" / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"),
        )
    )


def _stage_files(
    candidate: Candidate, folder: Path, card: str, facts: Mapping[str, Any]
) -> dict[str, str]:
    """The version's files by name. Only the two known files of the checkpoint are taken along."""
    checkpoint, evaluation, about = (
        folder / name for name in ("checkpoint", "evaluation", "about")
    )
    for folder in (checkpoint, evaluation, about):
        folder.mkdir()
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(candidate.checkpoint / name, checkpoint / name)
    shutil.copyfile(candidate.evaluation, evaluation / "summary.json")
    if candidate.records.is_file():
        shutil.copyfile(candidate.records, evaluation / "records.arrow")
    serving = folder / SETTINGS
    serving.write_text(json.dumps({"shards": dict(candidate.shards)}, indent=2) + "\n")
    (about / "card.md").write_text(card)
    (about / "lineage.json").write_text(json.dumps(dict(facts), indent=2, default=str) + "\n")
    return {
        "checkpoint": str(checkpoint),
        "serving": str(serving),
        "evaluation": str(evaluation),
        "about": str(about),
    }
