"""How hard the bundled sample is: video alone, skeleton alone and both, without any attack.

    python -m benchmarks sample_difficulty -- [--data FOLDER] [key=value ...]

One network of params.yaml's backbones, the variant `late-natural`, is trained with a head on each
stream; the heads are the single streams. Accuracy on the test subjects of the protocol. The sample
is only worth something when both together clearly beat the better single one: that is the goal.
"""

import argparse
import tempfile

import torch

from benchmarks._bench import Result
from components.batch import Batch
from components.config import Config, load_config, to_dict
from components.datasets import BatchLoader, ClipDataset, fixed_batches
from components.evaluation.metrics import accuracy
from components.evaluation.piece import threat_of
from components.models import TwoStream, build_model
from components.training.loop import train_epochs
from components.training.shard_data import open_data, open_split
from components.training.state import new_state
from pipelines import index, sample, shard
from pipelines._stage import StageError, run_stage

EXPLICIT = True  # minutes
GOAL = 1.2


def run(args: list[str]) -> Result:
    """Lay the sample down (or take --data), train once, compare the three accuracies."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sample_difficulty")
    parser.add_argument("--data", help="an NTU-format folder instead of a new sample")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="sample-") as folder:
        words = [
            f"paths.data={options.data or folder + '/data'}",
            f"paths.artifacts={folder}/artifacts",
            "variant=late-natural",
            *options.overrides,
        ]
        stages = [] if options.data else [("sample", sample.main)]
        for name, main in (*stages, ("index", index.main), ("shard", shard.main)):
            if run_stage(name, main, words):
                raise StageError(f"the {name} stage failed; see above")
        config = load_config(overrides=words)
        shards = f"{folder}/artifacts/shards"
        model = _train(config, shards)
        figures = _test(model, config, shards)
    best = max(figures["rgb"]["value"], figures["skeleton"]["value"])
    return Result(
        name="sample_difficulty",
        ratio=figures["both"]["value"] / best if best else float("inf"),
        goal=GOAL,
        sense=">=",
        sides=figures,
        unit="accuracy of both streams / better single stream",
        notes=f"clean accuracy on {options.data or 'the bundled sample'}, {config.data.protocol}",
        details={"epochs": config.train.epochs, "seed": config.seed},
    )


def _train(config: Config, shards: str) -> TwoStream:
    torch.manual_seed(config.seed)
    data, classes = open_data(config, shards)
    settings = to_dict(config.model)
    model = build_model({**settings, "num_classes": len(classes)})
    state = new_state(model, lr=config.train.lr, ema=0.0)
    threat = threat_of(config.threat).scaled(rgb=0.0, skeleton=0.0)
    for row in train_epochs(state, data, config.train, threat, seed=config.seed):
        print(f"epoch {row['epoch']}: loss {row['loss']:.3f} val {row['val_clean_acc']:.3f}")
    return model.eval()


def _test(model: TwoStream, config: Config, shards: str) -> dict[str, dict[str, float]]:
    opened, split = open_split(config, shards)
    test = ClipDataset.for_model(opened, split.test, split.classes, to_dict(config.model))
    right: dict[str, list[bool]] = {"rgb": [], "skeleton": [], "both": []}
    for batch in BatchLoader(test, fixed_batches(len(test), 64)):
        for name, verdicts in _verdicts(model, batch).items():
            right[name] += verdicts
    return {name: accuracy(verdicts) for name, verdicts in right.items()}


@torch.no_grad()
def _verdicts(model: TwoStream, batch: Batch) -> dict[str, list[bool]]:
    output = model(batch.rgb, batch.skeleton, batch.present)
    logits = {**output.aux, "both": output.logits}
    return {name: (one.argmax(1) == batch.label).tolist() for name, one in logits.items()}
