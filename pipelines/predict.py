"""`python -m pipelines.predict VIDEO SKELETON`: the class of one clip, at the command line."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from components.config import Config, load_config
from components.errors import UserError
from components.shards import ShardSet
from mlflow_tracking import store
from mlflow_tracking.picture import draw
from mlflow_tracking.registry import fetch
from mlflow_tracking.serving import Predictor, Prepared
from pipelines._stage import ROOT, Stage, StageError, absolute, setup_logging


def main(argv: list[str] | None = None) -> int:
    """Classify one clip with a registered model or a checkpoint; print the answer."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.predict", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("video", type=Path, help="e.g. S001C001P001R001A001_rgb.avi")
    parser.add_argument("skeleton", type=Path, help="e.g. S001C001P001R001A001.skeleton")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. register.name=amr")
    parser.add_argument(
        "--model",
        default="",
        help="models:/NAME@ALIAS, models:/NAME/VERSION or a checkpoint folder",
    )
    parser.add_argument("--picture", type=Path, help="also draw frame, skeleton and weights there")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    parser.add_argument("--params", default=str(ROOT / "params.yaml"), help="settings file")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    try:
        config = load_config(args.params, args.overrides)
        predictor = open_model(config, args.model)
        prepared = read_clip(predictor, args.video, args.skeleton)
        (answer,) = predictor.predict(prepared.batch)
        if args.picture:
            draw(prepared.clip, answer, args.picture)
    except UserError as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    print(f"{answer['class_name']}  {100 * answer['probability']:.1f} %")
    for name, share in sorted(answer["probabilities"].items(), key=lambda item: -item[1])[1:4]:
        print(f"  {100 * share:5.1f} %  {name}")
    if answer["modality_weights"]:
        shares = (f"{k} {v:.2f}" for k, v in answer["modality_weights"].items())
        print(f"modality weights: {', '.join(shares)}")
    for flag in prepared.flags:
        print(f"note: {flag}")
    return 0


def open_model(config: Config, model: str) -> Predictor:
    """The champion, the named version, or a checkpoint folder of the train stage.

    Of a registered version only weights and settings are fetched: the code is this project's.
    """
    if model and "models:/" not in model:
        shards = Stage("predict", config).shards
        return Predictor.of_checkpoint(absolute(model), ShardSet.open(shards, verify=False).index)
    uri = model or f"models:/{config.register.name}@champion"
    with tempfile.TemporaryDirectory() as place:
        checkpoint, settings = fetch(store.tracking_uri(config.tracking), uri, Path(place))
        return Predictor.load(checkpoint, settings)


def read_clip(predictor: Predictor, video: Path, skeleton: Path) -> Prepared:
    """The clip from two files, which may lie in different folders."""
    for path in (video, skeleton):
        if not path.is_file():
            raise StageError(f"{path}: no such file")
    with tempfile.TemporaryDirectory() as place:
        copies = Path(place) / video.name, Path(place) / skeleton.name
        for source, copy in zip((video, skeleton), copies, strict=True):
            shutil.copyfile(source, copy)
        return predictor.prepare(*copies)


if __name__ == "__main__":
    sys.exit(main())
