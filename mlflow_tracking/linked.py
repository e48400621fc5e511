"""The models and data sets of a run, as MLflow's views of them want it: found or made, and linked.

A kept checkpoint is one LoggedModel, whichever run speaks of it: it is known by a tag, as a run is.
Its figures carry the data set they were measured on, so `mlflow.search_logged_models` and the pages
Models and Datasets can tell which model is best on what.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.shards import ShardSet
from mlflow_tracking import names
from mlflow_tracking.record import Point, Record
from mlflow_tracking.store import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

KEY_TAG = "amr.checkpoint"
DIGEST_LENGTH = 16  # of a data set; MLflow takes 36, and its tables show it whole


class DataSet(NamedTuple):
    """A split of sealed shards.

    name: `<recipe>-<split>`; fingerprint: of the shards; uri: where they lie; profile: plain facts
    such as the number of clips
    """

    name: str
    fingerprint: str
    uri: str
    profile: Mapping[str, Any]

    def entry(self, context: str) -> dict[str, Any]:
        """What a record keeps of it. context: what the run does with it, such as "test"."""
        digest = self.fingerprint[:DIGEST_LENGTH]
        return {**self._asdict(), "digest": digest, "context": context}


def data_set(recipe: str, shards: ShardSet, split: str, clips: int, **profile: Any) -> DataSet:
    """The data set of one split; clips: how many of it are read."""
    facts = {"clips": clips, "source": shards.source, **profile}
    return DataSet(f"{recipe}-{split}", shards.fingerprint, redact(shards.store.uri), facts)


def model_entry(
    record: Record,
    name: str,
    data: DataSet,
    *,
    split: str,
    step: int = 0,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """What a record keeps of a model that its run made or measured.

    The figures of `split` that were logged at `step` become the model's, measured on `data`.
    checkpoint: a folder with the weights, which the model gets
    """
    points = [p for p in record.points() if p.step == step and p.name.startswith(f"{split}/")]
    kept = record.keep(checkpoint) if checkpoint else {}
    return {
        "name": names.clean_name(name).replace("/", "-"),
        "step": step,
        "params": names.texts(params or {}),
        "tags": names.texts(tags or {}, names.TAG_LIMIT),
        "data_set": data.entry(split),
        "points": [list(p) for p in points if math.isfinite(p.value)],
        # Where `register` puts them as well, so the model holds them once.
        "files": {f"artifacts/checkpoint/{Path(target).name}": v for target, v in kept.items()},
    }


def send_data_set(client: "MlflowClient", run_id: str, entry: Mapping[str, Any]) -> None:
    """Link a data set to a run; MLflow keeps one of each name and digest in an experiment.

    Its source has the form of `mlflow.data`, so `mlflow.data.get_source` reads it.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    scheme = entry["uri"].partition("://")[0] if "://" in entry["uri"] else "local"
    made = Dataset(
        entry["name"],
        entry["digest"],
        source_type="local" if scheme == "file" else scheme,
        source=json.dumps({"uri": entry["uri"]}),
        profile=json.dumps({**entry["profile"], "fingerprint": entry["fingerprint"]}),
    )
    tag = InputTag("mlflow.data.context", entry["context"])
    client.log_inputs(run_id, [DatasetInput(made, [tag])])


def send_model(
    client: "MlflowClient", run_id: str, key: str, entry: Mapping[str, Any], folder: Path
) -> str:
    """Find or make the model of `key`, bring it up to `entry`, link it; its id.

    folder: of the record, where the files lie. Called again, it changes nothing.
    """
    run = client.get_run(run_id)
    model_id = find_model(client, run.info.experiment_id, key)
    if model_id is None:
        made = client.create_logged_model(
            run.info.experiment_id,
            name=entry["name"],
            source_run_id=run_id,
            tags={**entry["tags"], KEY_TAG: key, "mlflow.model.isExternal": "true"},
            params=entry["params"],
            model_type="action recogniser",
        )
        model_id = str(made.model_id)
    else:
        client.set_logged_model_tags(model_id, entry["tags"])
    _link(client, run, model_id, entry)
    for some in _chunks([Point(*point) for point in entry["points"]], 900):
        client.log_batch(run_id, _metrics(some, model_id, run_id, entry), synchronous=True)
    for target, kept in entry["files"].items():
        # Without its file it was sent, and a kill came before that was noted.
        if (path := folder / kept["file"]).is_file():
            client.log_model_artifact(model_id, str(path), target.rpartition("/")[0])
    client.finalize_logged_model(model_id, "READY")
    return model_id


def find_model(client: "MlflowClient", experiment_id: str, key: str) -> str | None:
    """The id of the model that was made for `key`."""
    found = client.search_logged_models(
        [experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1
    )
    return str(found[0].model_id) if found else None


def _link(client: "MlflowClient", run: Any, model_id: str, entry: Mapping[str, Any]) -> None:
    """Among what the run made, if it has the weights, else among what it read."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    inputs = run.inputs.model_inputs if run.inputs else []
    outputs = run.outputs.model_outputs if run.outputs else []
    if model_id in {model.model_id for model in (*inputs, *outputs)}:
        return
    if entry["files"]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, entry["step"])])
    else:
        client.log_inputs(run.info.run_id, models=[LoggedModelInput(model_id)])


def _metrics(
    points: Sequence[Point], model_id: str, run_id: str, entry: Mapping[str, Any]
) -> list["Metric"]:
    from mlflow.entities import Metric

    data = entry["data_set"]
    return [
        Metric(p.name, p.value, p.ms, p.step, model_id, data["name"], data["digest"], run_id)
        for p in points
    ]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
