"""`amr export FOLDER`: a trained run for the Hugging Face Hub, and as a torch.export program.

The folder holds weights without pickles, their configuration, what is needed to read raw clips, and
a card with the measured figures. Nothing is uploaded: that is the user's to decide.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from components.address import local_path
from components.batch import Batch
from components.checkpoint import CONFIG, WEIGHTS, load_model
from components.config import load_config
from components.datasets import ClipDataset, describe, select_split
from components.errors import UserError
from components.files import read_json, write_bytes, write_json, write_text
from components.shards import ShardSet
from mlflow_tracking import lineage
from mlflow_tracking.serving import SETTINGS, class_names
from pipelines._hub_card import Facts, render
from pipelines._stage import ROOT, Stage, StageError, setup_logging
from pipelines._terminal import ended_politely
from pipelines._torch_export import export_program
from pipelines.report import is_synthetic

CARD, EVALUATION, PROGRAMS = "README.md", "evaluation.json", ".pt2"
OWN = {WEIGHTS, CONFIG, SETTINGS, EVALUATION, CARD}
# What a predictor reads raw clips by. Where the shards lie is nobody's business elsewhere.
READING = ("source", "unit", "codec", "jpeg_quality", "frames", "size", "margin")


def main(argv: list[str] | None = None) -> int:
    """Write the run of `variant` and `seed` to a folder for the Hugging Face Hub."""
    parser = argparse.ArgumentParser(
        prog="amr export", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", help="an empty folder, a new one, or that of an earlier export")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. variant=amr seed=1")
    parser.add_argument(
        "--torch-export",
        default="",
        metavar="FILE",
        help="also write torch.export's program, checked on test clips, e.g. amr.pt2",
    )
    parser.add_argument("--clips", type=int, default=16, help="test clips of that check")
    parser.add_argument("--params", default=str(ROOT / "params.yaml"), help="settings file")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    return ended_politely("export", lambda: _export(args))


def _export(args: argparse.Namespace) -> int:
    stage = Stage("export", load_config(args.params, args.overrides))
    # Of what is typed into a shell, people expect the shell's folder to count.
    folder = local_path(args.folder, Path.cwd())
    check_target(folder)
    program = local_path(args.torch_export, Path.cwd()) if args.torch_export else None
    if program is not None and program.suffix != PROGRAMS:
        raise UserError(f"{program.name}: name the program FILE{PROGRAMS}")
    if args.clips < 1:
        raise UserError(f"--clips {args.clips}: at least one clip must be compared")
    checkpoint, summary = trained_run(stage)
    model, config = load_model(checkpoint)
    if summary.get("checkpoint_sha256") != config["weights_sha256"]:
        raise StageError(
            f"the evaluation of {stage.config.run} is of another checkpoint than {checkpoint}; "
            "run `python -m pipelines.evaluate` first"
        )
    shards = ShardSet.open(stage.shards, cache_gb=stage.config.shard.cache_gb, verify=False)
    if summary.get("shards_fingerprint", shards.fingerprint) != shards.fingerprint:
        raise StageError(
            f"{stage.config.run} was evaluated on other shards than {stage.shards}; "
            "run `python -m pipelines.evaluate` first"
        )
    facts = _facts(stage, shards, config, summary)
    if program is not None:
        batch = _test_clips(stage, shards, config, args.clips)
        about = {"classes": facts.classes, "actions": config["classes"], "unit": shards.unit}
        worst = export_program(model, batch, program, about)
        print(
            f"{program}: loaded again, {batch.size} test clips give the same classes, logits "
            f"differ by {worst:.1e} at most"
        )
    write_folder(folder, checkpoint, shards, summary, render(facts))
    print(f"{folder}: {', '.join(sorted(OWN))}")
    print(
        f"nothing is uploaded; to do so: hf upload USER/NAME {folder}   (the data set's licence "
        "decides whether you may: see the card)"
    )
    return 0


def trained_run(stage: Stage) -> tuple[Path, dict[str, Any]]:
    """The best checkpoint of the run, and its evaluation. StageError when either is missing."""
    run = stage.config.run
    words = f"variant={stage.config.variant} seed={stage.config.seed}"
    checkpoint = stage.artifacts / "train" / run / "best"
    stage.require(checkpoint, f"train {words}")
    path = stage.artifacts / "evaluation" / f"{run}.json"
    stage.require(path, f"evaluate {words}")
    return checkpoint, read_json(path)


def check_target(folder: Path) -> None:
    """UserError for a folder that holds anything but an earlier export: it would be mixed up."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is no folder; name an empty or a new one")
    if not folder.is_dir():
        return
    # A clone of a repository on the Hub has .git and .gitattributes.
    there = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    foreign = sorted(n for n in there - OWN if not n.endswith(PROGRAMS))
    if foreign or (there and not {WEIGHTS, CONFIG} <= there):
        shown = ", ".join((foreign or sorted(there))[:3])
        raise UserError(f"{folder} holds files of something else ({shown}); name an empty folder")


def write_folder(
    folder: Path, checkpoint: Path, shards: ShardSet, summary: dict[str, Any], card: str
) -> None:
    """Write the files, each whole or not at all; the weights last, the card before them."""
    settings = {key: shards.index[key] for key in READING if key in shards.index}
    write_json(folder / SETTINGS, {"shards": settings})
    write_json(folder / EVALUATION, summary)
    write_text(folder / CARD, card)
    for name in (CONFIG, WEIGHTS):
        write_bytes(folder / name, (checkpoint / name).read_bytes())


def _facts(
    stage: Stage, shards: ShardSet, config: dict[str, Any], summary: dict[str, Any]
) -> Facts:
    return Facts(
        name=f"{stage.config.recipe}-{stage.config.run}",
        model=config["model"],
        classes=class_names(config["classes"], shards.source),
        data=describe(stage.config.data, shards, select_split(shards, stage.config.data)),
        synthetic=is_synthetic(stage.raw) or stage.config.recipe == "sample",
        summary=summary,
        method=str(config.get("train", {}).get("method", "unknown")),
        commit=lineage.code(ROOT)[0],
    )


def _test_clips(stage: Stage, shards: ShardSet, config: dict[str, Any], count: int) -> Batch:
    rows = select_split(shards, stage.config.data).test[:count]
    data = ClipDataset.for_model(shards, rows, config["classes"], config["model"])
    return data.batch(range(len(data)))


if __name__ == "__main__":
    sys.exit(main())
