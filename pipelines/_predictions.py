"""Clips to answers, several at a time.

A clip that cannot be read gets its reason, and the rest goes on.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.sources.base import Found
from components.sources.ingest import missing_twin
from mlflow_tracking.serving import BadInput, Predictor, Prepared, join

BATCH = 16  # clips of one forward pass


@dataclass(frozen=True)
class Job:
    """One clip to classify.

    reason: why it cannot be, where that is known beforehand; action: the class that its name says
    """

    name: str
    video: Path | None = None
    skeleton: Path | None = None
    reason: str = ""
    action: int | None = None

    @classmethod
    def of(cls, root: Path, found: Found) -> "Job":
        """The job for a clip that a data set's adapter has found."""
        lacking = missing_twin(found)
        reason = f"{lacking.reason}: {lacking.detail}" if lacking else ""
        if found.first or found.last >= 0:
            reason = "part-of-recording: cut the clip out first; predict reads whole files"
        video, skeleton = (root / name if name else None for name in (found.video, found.skeleton))
        return cls(str(found.clip), video, skeleton, reason, found.clip.action)


@dataclass(frozen=True)
class Prediction:
    """What came of a job: an answer with its clip, or an error."""

    job: Job
    prepared: Prepared | None = None
    answer: dict[str, Any] | None = None
    error: str = ""


def classify(predictor: Predictor, jobs: Iterable[Job]) -> Iterator[Prediction]:
    """A prediction for each job, in their order."""
    waiting: list[Prediction] = []
    for job in jobs:
        waiting.append(_read(predictor, job))
        if len(waiting) == BATCH:
            yield from _answered(predictor, waiting)
            waiting = []
    yield from _answered(predictor, waiting)


def _read(predictor: Predictor, job: Job) -> Prediction:
    if job.reason:
        return Prediction(job, error=job.reason)
    assert job.video is not None and job.skeleton is not None
    with tempfile.TemporaryDirectory() as place:
        try:
            # The two files of a clip lie in folders of their own; a predictor takes one folder.
            links = Path(place) / job.video.name, Path(place) / job.skeleton.name
            for file, link in zip((job.video, job.skeleton), links, strict=True):
                link.symlink_to(file.absolute())
            return Prediction(job, predictor.prepare(*links))
        except (UserError, OSError) as error:
            said = " ".join(str(error).split())
            return Prediction(job, error=said.replace(place, str(job.video.parent)))


def _answered(predictor: Predictor, read: list[Prediction]) -> Iterator[Prediction]:
    ready = [one.prepared for one in read if one.prepared is not None]
    if not ready:
        yield from read
        return
    try:
        answers = iter(predictor.predict(join([prepared.batch for prepared in ready])))
    except BadInput as error:
        if len(read) == 1:
            yield Prediction(read[0].job, error=str(error))
            return
        for one in read:  # one clip's odd numbers must not take the others' answers
            yield from _answered(predictor, [one])
        return
    for one in read:
        yield one if one.prepared is None else Prediction(one.job, one.prepared, next(answers))
