"""`amr predict CLIP ...`: classes of clips at the command line, one clip or a folder of them."""

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from components.address import local_path, readable
from components.config import Config, load_config
from components.errors import UserError
from components.progress_bar import progress
from components.shards import ShardSet
from components.sources import get_source
from components.sources.base import Source
from mlflow_tracking import store
from mlflow_tracking.picture import draw
from mlflow_tracking.registry import fetch
from mlflow_tracking.serving import SETTINGS, Predictor
from pipelines._clips import find_clip
from pipelines._predictions import Job, Prediction, classify
from pipelines._stage import ROOT, Stage, StageError, absolute, setup_logging
from pipelines._terminal import ended_politely, picture_errors

FORMATS = ("text", "csv", "json")
COLUMNS = (
    *("clip", "video", "skeleton", "class_name", "action", "probability"),
    *("weight_rgb", "weight_skeleton", "flags", "error"),
)


def main(argv: list[str] | None = None) -> int:
    """Classify clips with a registered model or a checkpoint.

    Status 0: all answered; 1: clips of a folder could not be read (each with its reason); 2: error.
    """
    parser = argparse.ArgumentParser(
        prog="amr predict", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a folder; a clip's name in the data folder; a video or skeleton; VIDEO SKELETON",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. register.name=amr")
    parser.add_argument(
        "--model",
        default="",
        help="models:/NAME@ALIAS, models:/NAME/VERSION, a checkpoint folder or an exported one",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="of what is printed")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("--picture", type=Path, help="also draw frame, skeleton and weights there")
    parser.add_argument(
        "--attack", action="store_true", help="attack the clips, and write a page to look at them"
    )
    parser.add_argument(
        "--page", type=Path, default=Path("attack.html"), help="of --attack; default attack.html"
    )
    parser.add_argument("--params", default=str(ROOT / "params.yaml"), help="settings file")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    return ended_politely("predict", lambda: _predict(args))


def _predict(args: argparse.Namespace) -> int:
    words = [*args.clips, *args.overrides]
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    named = [word for word in words if word not in overrides]
    if not named:
        raise UserError("no clip is named; give a folder, a clip's name or its files")
    config = load_config(args.params, overrides)
    predictor = open_model(config, args.model)
    source = get_source(predictor.shards["source"])
    stage = Stage("predict", config)
    jobs, many = jobs_of(named, source, stage.data)
    if args.picture and many:
        raise UserError("--picture draws one clip; name one")
    form = "json" if args.json else args.format
    if args.attack:
        from pipelines import _attacked  # attacks and report take a second to import

        found = classify(predictor, jobs)
        name = name_of(args.model or f"{config.register.name}@champion")
        return _attacked.show(
            stage, predictor, found, jobs, model=name, form=form, page=args.page.expanduser()
        )
    # A bar between printed lines would tear them apart.
    quiet = (form != "json" and sys.stdout.isatty()) or not many
    found = classify(predictor, jobs if quiet else progress(jobs, len(jobs), "predict", "clip"))
    if many:
        unread = _print_many(found, form)
        if unread:
            print(f"predict: {unread} of {len(jobs)} clips have no answer", file=sys.stderr)
        return int(unread > 0)
    (one,) = found
    if one.answer is None:
        raise UserError(one.error)
    if args.picture:
        assert one.prepared is not None
        with picture_errors(args.picture):
            draw(one.prepared.clip, one.answer, args.picture)
    if form == "json":
        print(json.dumps(_body(one), indent=2))
    elif form == "csv":
        _print_many([one], form)
    else:
        _print_one(one)
    return 0


def jobs_of(named: list[str], source: Source, data: Path) -> tuple[list[Job], bool]:
    """What is to be classified, and whether it is more than one clip named by itself.

    Files whose names hold a clip's but have another form are jobs too: each gets its reason.
    UserError for a folder without clips and for what cannot be found.
    """
    paths = [Path(word).expanduser() for word in named]
    if _are_a_pair(paths):
        for path in paths:
            if not path.is_file():
                raise StageError(f"{readable(str(path))}: no such file")
        return [Job(readable(paths[0].stem), paths[0], paths[1])], False
    jobs = []
    for word, path in zip(named, paths, strict=True):
        if not path.is_dir():
            root, found = find_clip(word, source, data)
            jobs.append(Job.of(root, found))
            continue
        listing = source.find(path)
        if not listing.clips:
            raise UserError(
                f"{readable(str(path))} holds no clip; expected files such as {source.example}"
            )
        jobs += [Job.of(path, found) for found in listing.clips]
        jobs += [
            Job(name, reason=f"odd-name: expected a form like {source.example}")
            for name in listing.strangers
        ]
    return jobs, len(jobs) > 1 or any(path.is_dir() for path in paths)


def _are_a_pair(paths: list[Path]) -> bool:
    """Whether two words are the video and the skeleton of one clip, maybe with a slip in one."""
    if len(paths) != 2 or not any(path.is_file() for path in paths):
        return False
    video, skeleton = (path.suffix.lower() for path in paths)
    return "" not in (video, skeleton) and (video != skeleton or video == ".mat")


def name_of(model: str) -> str:
    """What to call a model: `amr@champion`, or `amr-s0` of the checkpoint `.../amr-s0/best`."""
    parts = Path(model.removeprefix("models:/")).parts
    if "models:/" in model:
        return "/".join(parts)
    whole = Path(model).absolute()
    return whole.parent.name if whole.name in ("best", "last") else whole.name


def open_model(config: Config, model: str) -> Predictor:
    """The champion, the named version, a checkpoint of the train stage or an exported folder.

    Of a registered version only weights and settings are fetched: the code is this project's.
    """
    if model and "models:/" not in model:
        # Typed into a shell, so the shell's folder counts; else the project's, as in settings.
        folder = local_path(model, Path.cwd())
        folder = folder if folder.is_dir() else absolute(model)
        if (folder / SETTINGS).is_file():
            return Predictor.load(folder, folder / SETTINGS)
        shards = Stage("predict", config).shards
        return Predictor.of_checkpoint(folder, ShardSet.open(shards, verify=False).index)
    name = model or f"models:/{config.register.name}@champion"
    uri = store.tracking_uri(config.tracking)
    file = store.sqlite_file(uri)
    if not store.reachable(uri) or (file is not None and not file.is_file()):
        what = "is not there yet" if file is not None else "does not answer"
        raise StageError(
            f"{name}: the registry {store.redact(uri)} {what}; `python -m pipelines.register` "
            "makes a version, or name a checkpoint folder with --model"
        )
    with tempfile.TemporaryDirectory() as place:
        checkpoint, settings = fetch(uri, name, Path(place))
        return Predictor.load(checkpoint, settings)


def _print_many(found: Iterable[Prediction], form: str) -> int:
    """Print a row for each clip as soon as it is known; how many have no answer."""
    unread, rows = 0, []
    writer = csv.DictWriter(sys.stdout, COLUMNS, extrasaction="ignore", lineterminator="\n")
    if form == "csv":
        writer.writeheader()
    for one in found:
        unread += one.answer is None
        if form == "json":
            rows.append(_body(one))
        elif form == "csv":
            writer.writerow(_flat(one))
        else:
            print("  ".join(_words(one)), flush=True)
    if form == "json":
        print(json.dumps(rows, indent=2))
    return unread


def _body(one: Prediction) -> dict[str, Any]:
    files = {
        "clip": one.job.name,
        "video": _text(one.job.video),
        "skeleton": _text(one.job.skeleton),
    }
    if one.answer is None:
        return {**files, "error": one.error}
    assert one.prepared is not None
    return {**files, "flags": list(one.prepared.flags), **one.answer}


def _flat(one: Prediction) -> dict[str, Any]:
    body = _body(one)
    weights = body.get("modality_weights") or {}
    return {
        **body,
        "video": readable(body["video"] or ""),
        "skeleton": readable(body["skeleton"] or ""),
        "flags": " ".join(body.get("flags", ())),
        "weight_rgb": weights.get("rgb"),
        "weight_skeleton": weights.get("skeleton"),
    }


def _words(one: Prediction) -> Iterator[str]:
    yield f"{one.job.name:<20}"
    if one.answer is None:
        yield f"   -     {one.error}"
        return
    yield f"{100 * one.answer['probability']:5.1f} %  {one.answer['class_name']}"


def _print_one(one: Prediction) -> None:
    answer, prepared = one.answer, one.prepared
    assert answer is not None and prepared is not None
    print(f"{answer['class_name']}  {100 * answer['probability']:.1f} %")
    for name, share in sorted(answer["probabilities"].items(), key=lambda item: -item[1])[1:4]:
        print(f"  {100 * share:5.1f} %  {name}")
    if answer["modality_weights"]:
        shares = (f"{k} {v:.2f}" for k, v in answer["modality_weights"].items())
        print(f"modality weights: {', '.join(shares)}")
    for flag in prepared.flags:
        print(f"note: {flag}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


if __name__ == "__main__":
    sys.exit(main())
