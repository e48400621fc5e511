"""`amr predict --attack`: clips of files before and after attacks, as rows and as a page.

The attacks are those that the report's gallery shows, with the budgets of params.yaml, so a clip of
the test split meets what it met in the evaluation.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from components.attacks import ThreatModel
from components.errors import UserError
from components.evaluation.gallery import Gallery, gallery_of, shown_of
from components.evaluation.piece import threat_of
from components.evaluation.suite import QUICK
from components.files import write_text
from components.progress_bar import progress
from components.reporting.gallery_data import CLIPS, render_clip
from components.reporting.words import attack_words
from components.sample.folder import read_marker
from mlflow_tracking.serving import Predictor
from pipelines._predictions import Job, Prediction
from pipelines._stage import Stage

COLUMNS = (
    *("clip", "cell", "attack", "class_name", "action", "probability", "correct", "label"),
    *("label_known", "label_probability", "weight_rgb", "weight_skeleton"),
    *("rgb_linf", "skeleton_linf", "flags", "error"),
)
WHERE = {"rgb": "video", "skeleton": "skeleton", "both": "both"}
WIDTH = 33  # of the column that names what was done to a clip


@dataclass(frozen=True)
class Attacked:
    """A clip's prediction and what attacks made of it: None where it could not be read.

    label_known: the clip's name says its class, and the model knows that class; otherwise the
    attacks lead away from the model's own answer.
    """

    prediction: Prediction
    gallery: Gallery | None = None
    label_known: bool = False


def show(
    stage: Stage,
    predictor: Predictor,
    found: Iterable[Prediction],
    jobs: Sequence[Job],
    *,
    model: str,
    form: str,
    page: Path,
) -> int:
    """Attack the clips of `jobs`, print each before and after, write the page; the exit status.

    model: what the page calls it; form: "text", "csv" or "json". UserError for too many clips.
    """
    if len(jobs) > CLIPS:
        raise UserError(
            f"--attack takes up to {CLIPS} clips, got {len(jobs)}; name a few of them, or measure "
            "a whole test split with `python -m pipelines.evaluate`"
        )
    names = [job.name for job in jobs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--attack: {twice} is named twice; name each clip once")
    _check_writable(page)
    pictures = stage.config.evaluate.allow_licensed_export or from_sample(stage.data, jobs)
    threat, seed = threat_of(stage.config.threat), stage.config.seed
    # On a terminal each clip's lines come as soon as they are known, and a bar would tear them.
    quiet = form == "text" and sys.stdout.isatty()
    attacked = []
    for one in found if quiet else progress(found, len(jobs), "attack", "clip"):
        attacked.append(attack(predictor, one, threat, seed=seed, pictures=pictures))
        if form == "text":
            print("\n".join(lines(attacked[-1], predictor)), flush=True)
    _print_rows(attacked, predictor, form)
    shown = [one for one in attacked if one.gallery is not None]
    if shown:
        _write_page(page, shown, predictor, model)
        # Where the answers are data, they stay alone on standard output.
        about = sys.stdout if form == "text" else sys.stderr
        print(f"page: {page.absolute()}{'' if pictures else NO_PICTURES}", file=about)
    unread = len(attacked) - len(shown)
    if unread:
        print(f"predict: {unread} of {len(jobs)} clips have no answer", file=sys.stderr)
    return int(unread > 0)


NO_PICTURES = (
    " (answers only: the clips are not the synthetic sample; if their licence allows pictures on a "
    "page, add evaluate.allow_licensed_export=true)"
)


def from_sample(data: Path, jobs: Iterable[Job]) -> bool:
    """Whether every file of these clips is one that the bundled generator wrote under `data`."""
    marker = read_marker(data)
    known = {(data / name).resolve() for name in marker["files"]} if marker else set()
    files = [path for job in jobs for path in (job.video, job.skeleton) if path is not None]
    return all(path.resolve() in known for path in files)


def attack(
    predictor: Predictor, one: Prediction, threat: ThreatModel, *, seed: int, pictures: bool
) -> Attacked:
    """A prediction with the attacks of the gallery in each cell that the threat model allows."""
    if one.prepared is None or one.answer is None:
        return Attacked(one)
    action, label, known = one.job.action, one.answer["label"], False
    if action is not None and action in predictor.classes:
        label, known = predictor.classes.index(action), True
    # Attacks draw by the clip's name, so they find what they find in the evaluation.
    batch = one.prepared.batch._replace(label=torch.tensor([label]), clip_id=(one.job.name,))
    shown = shown_of(QUICK)
    found = gallery_of(predictor.model, batch, shown, threat, seed=seed, pictures=pictures)
    return Attacked(one, found, known)


def rows(one: Attacked, predictor: Predictor) -> Iterator[dict[str, Any]]:
    """What the model says of a clip as it is and after each attack, plain values by COLUMNS."""
    if one.gallery is None:
        yield {"clip": one.prediction.job.name, "error": one.prediction.error}
        return
    flags = one.prediction.prepared.flags if one.prediction.prepared else ()
    for row in one.gallery.rows.to_pylist():
        best = row["labels"][0]
        yield {
            "clip": row["clip_id"],
            "cell": row["cell"],
            "attack": row["attack"],
            "class_name": predictor.names[best],
            "action": predictor.classes[best],
            "probability": row["probabilities"][0],
            "correct": row["correct"],
            "label": predictor.names[row["label"]],
            "label_known": one.label_known,
            "label_probability": row["label_probability"],
            **dict(zip(("weight_rgb", "weight_skeleton"), row["weights"] or (), strict=False)),
            "rgb_linf": row["rgb_linf"],
            "skeleton_linf": row["skeleton_linf"],
            "flags": " ".join(flags),
        }


def lines(one: Attacked, predictor: Predictor) -> Iterator[str]:
    """A clip before and after the attacks as text, a line each."""
    clean, *after = rows(one, predictor)
    if one.gallery is None:
        yield f"{clean['clip']}\n  {clean['error']}"
        return
    words = {entry["name"]: attack_words(entry) for entry in one.gallery.about["attacks"]}
    told = f"shows {clean['label']}" if one.label_known else "nobody has said what it shows"
    yield f"{clean['clip']} ({told})"
    yield _line("as it is", clean, "" if clean["correct"] else "wrong, so nothing attacks it")
    for row in after:
        fate = "stands" if row["correct"] else "fooled"
        yield _line(f"{WHERE[row['cell']]}: {words[row['attack']]}", row, fate)
    if not one.label_known:
        yield "  note: the attacks lead away from the model's own answer"
    yield from (f"  note: {flag}" for flag in clean["flags"].split())


def _line(done: str, row: dict[str, Any], fate: str) -> str:
    weight = row.get("weight_rgb")
    said = f"  {done:<{WIDTH}} {100 * row['probability']:5.1f} %  {row['class_name']:<24}"
    said += "" if weight is None else f"  video's weight {weight:.2f}"
    return f"{said}  {fate}".rstrip()


def _print_rows(attacked: Sequence[Attacked], predictor: Predictor, form: str) -> None:
    found = [row for one in attacked for row in rows(one, predictor)]
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    elif form == "json":
        print(json.dumps(found, indent=2))


def _write_page(page: Path, shown: Sequence[Attacked], predictor: Predictor, model: str) -> None:
    galleries = [one.gallery for one in shown if one.gallery is not None]
    joined = Gallery(pa.concat_tables([one.rows for one in galleries]), galleries[0].about)
    names = [one.prediction.job.name for one in shown]
    title = names[0] if len(names) == 1 else f"{len(names)} clips"
    html = render_clip(
        joined,
        title=f"{title} under attack",
        labels=predictor.names,
        model=model,
        unit=predictor.shards["unit"],
        own_answers=[one.prediction.job.name for one in shown if not one.label_known],
    )
    write_text(page, html)


def _check_writable(page: Path) -> None:
    """UserError for a page that could not be written, before the attacks take their time."""
    folder = page.absolute().parent
    if page.is_dir() or not folder.is_dir():
        what = "is a folder" if page.is_dir() else f"cannot be written: no folder {folder}"
        raise UserError(f"{page} {what}; name an .html file with --page")
