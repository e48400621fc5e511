"""What is served is what was evaluated; a bad request is told why; nothing foreign runs."""

import base64
import json
import pickle  # noqa: TID251 - the planted attack is one
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.checkpoint import CheckpointError
from components.shards import ShardSet
from components.sources import get_source
from mlflow_tracking.serving import BadInput, Predictor, class_names, join
from pipelines import register
from pipelines._stage import Stage


@pytest.fixture
def predictor(project: Any) -> Predictor:
    shards = ShardSet.open(project.artifacts / "shards")
    settings = project.artifacts / "serving.json"
    settings.write_text(json.dumps({"shards": shards.index}))
    return Predictor.load(project.artifacts / "train" / "amr-s0" / "best", settings)


def files(project: Any) -> dict[str, tuple[Path, Path]]:
    found = get_source("ntu").find(project.data).clips
    return {str(f.clip): (project.data / f.video, project.data / f.skeleton) for f in found}


def request(video: Path, skeleton: Path) -> tuple[str, str]:
    return base64.b64encode(video.read_bytes()).decode(), skeleton.read_text()


def test_a_raw_clip_becomes_the_very_batch_that_was_evaluated(
    project: Any, predictor: Predictor, open_test_split: Any
) -> None:
    data = open_test_split(project)
    paths = files(project)
    served = [predictor.prepare_request(*request(*paths[clip])).batch for clip in data.clip_ids]
    batch = join(served)
    expected = data.batch(range(len(data)))
    for got, wanted in zip(batch[:3], expected[:3], strict=True):
        assert torch.equal(got, wanted)
    with pa.memory_map(str(project.artifacts / "evaluation" / "amr-s0.arrow")) as source:
        records = pa.ipc.open_file(source).read_all().to_pylist()
    evaluated = {r["clip_id"]: r["prediction"] for r in records if r["cell"] == "clean"}
    answers = predictor.predict(batch)
    assert [answer["label"] for answer in answers] == [evaluated[clip] for clip in data.clip_ids]


def test_an_answer_is_complete(project: Any, predictor: Predictor) -> None:
    paths = next(iter(files(project).values()))
    (answer,) = predictor.predict(predictor.prepare_request(*request(*paths)).batch)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["class_name"] == predictor.names[answer["label"]]
    assert answer["action"] == predictor.classes[answer["label"]]
    assert sum(answer["modality_weights"].values()) == pytest.approx(1, abs=1e-5)
    json.dumps(answer)


def test_jpeg_shards_are_served_with_the_same_loss(project: Any, predictor: Predictor) -> None:
    paths = next(iter(files(project).values()))
    raw = predictor.prepare_request(*request(*paths)).clip
    predictor.shards = {**predictor.shards, "codec": "jpeg", "jpeg_quality": 40}
    lossy = predictor.prepare_request(*request(*paths)).clip
    assert lossy.rgb.shape == raw.rgb.shape
    assert not np.array_equal(lossy.rgb, raw.rgb)


def test_bad_clips_are_told_why(project: Any, predictor: Predictor) -> None:
    video, skeleton = request(*next(iter(files(project).values())))
    half = base64.b64encode(base64.b64decode(video)[:200]).decode()
    for bad, word in [
        (("@@@", skeleton), "not base64"),
        ((base64.b64encode(b"no video").decode(), skeleton), "video"),
        ((half, skeleton), "video"),
        ((video, "1 2 3"), "skeleton"),
        ((video, ""), "must be a text"),
        ((None, skeleton), "video_base64 must be a text"),
        ((7, skeleton), "video_base64 must be a text"),
    ]:
        with pytest.raises(BadInput, match=word):
            predictor.prepare_request(*bad)


def test_bad_arrays_are_told_why(project: Any, predictor: Predictor, open_test_split: Any) -> None:
    good = [t.numpy() for t in open_test_split(project).batch([0, 1])[:3]]
    assert predictor.check_arrays(*good).size == 2
    assert predictor.check_arrays(*(a[0].tolist() for a in good)).size == 1
    rgb, skeleton, present = good
    for bad, word in [
        ((rgb * 255, skeleton, present), "divide by 255"),
        ((rgb * 2 - 1, skeleton, present), r"lies in \[-0.*normalise inside the model"),
        ((rgb, skeleton * 1000, present), "divide by 1000"),
        ((rgb[:, :2], skeleton, present), r"rgb must have the shape \[B, 3, 4, 16, 16\]"),
        ((rgb, skeleton * np.nan, present), "skeleton holds values that are not finite"),
        ((rgb, "joints", present), "skeleton is no array"),
        ((rgb, skeleton[:1], present), "different numbers of clips"),
        ((rgb[:0], skeleton[:0], present[:0]), "must have the shape"),
        ((None, skeleton, present), "rgb"),
    ]:
        with pytest.raises(BadInput, match=word):
            predictor.check_arrays(*bad)


def test_what_lies_at_an_absent_person_changes_nothing(
    project: Any, predictor: Predictor, open_test_split: Any
) -> None:
    rgb, skeleton, present = (t.numpy() for t in open_test_split(project).batch([0])[:3])
    absent = ~np.broadcast_to(present[:, None, :, None, :], skeleton.shape)
    assert absent.any()
    junk = np.where(absent, 9.0, skeleton)
    answers = [predictor.predict(predictor.check_arrays(rgb, s, present)) for s in (skeleton, junk)]
    assert answers[0] == answers[1]


def test_class_names_are_those_of_the_data_set_and_differ() -> None:
    assert class_names([1, 2], "ntu") == ["drink water", "eat meal/snack"]
    assert len(set(class_names([130, 131, 500], "ntu"))) == 3
    assert class_names([1, 27], "utd_mhad_depth") == ["swipe left", "squat"]
    assert class_names([20, 99], "imigue") == ["A020", "A099"]


class _Trap:
    """Runs `touch` when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.pt"])
def test_a_planted_checkpoint_is_refused_and_runs_nothing(
    project: Any, tmp_path: Path, name: str
) -> None:
    proof = tmp_path / "proof"
    best = project.artifacts / "train" / "amr-s0" / "best"
    if name == "model.pt":
        (best / "model.safetensors").unlink()
    (best / name).write_bytes(pickle.dumps(_Trap(proof)))
    pickle.loads(pickle.dumps(_Trap(tmp_path / "works")))  # noqa: S301 - shows that the trap works
    assert (tmp_path / "works").exists()
    with pytest.raises(CheckpointError):
        register.gather(Stage("register", project.config, ()))
    assert not proof.exists()
    status = register.run_stage("register", register.main, project.words)
    assert status == 2
    assert not proof.exists()
    shutil.rmtree(best)
