"""What the train stage shows and writes while it runs: a bar, plain lines, history, MLflow."""

import csv
import json
import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from tqdm import tqdm

from components.attacks import CELLS, MODALITIES
from components.checkpoint import read_config
from components.config import Config, flatten
from components.shards import ShardSet
from mlflow_tracking.linked import data_set
from mlflow_tracking.names import epoch_metrics
from mlflow_tracking.run import Run, start_run
from pipelines._progress import Event
from pipelines._ray import TrainResult

log = logging.getLogger("train")

COLUMNS = (
    "epoch", "loss", "train_clean_acc", "train_robust_acc", "val_clean_acc",
    "val_robust_acc_rgb", "val_robust_acc_skeleton", "val_robust_acc_both", "val_robust_acc_worst",
    "seconds", "train_seconds", "clips_per_s", "lr", "rgb_eps", "skeleton_eps", "steps",
    "rolled_back",
    *(f"val_{m}_{figure}" for m in MODALITIES for figure in ("acc_clean", "acc_both", "reliance")),
    *(f"val_weight_{case}" for case in ("clean", *CELLS)),
    *(f"val_weight_std_{case}" for case in ("clean", *CELLS)),
    "val_weight_contrast", "val_weight_contrast_error", "rgb_grad", "skeleton_grad",
)  # fmt: skip


class Reporter:
    """Handles the messages of one training run, in the driver; a context that closes its files."""

    def __init__(
        self, config: Config, artifacts: Path, out: Path, clips: int, shards: ShardSet | None = None
    ) -> None:
        self.config, self.artifacts, self.out, self.shards = config, artifacts, out, shards
        self.model = config.run
        self.rows: dict[int, Event] = {}
        self.first = 0
        self.run: Run
        self.file: IO[str]
        self.bar: tqdm | None = None
        self.clips = clips

    def __enter__(self) -> "Reporter":
        train = self.config.train
        name = f"{self.config.variant} seed {self.config.seed}"
        self.run = start_run("train", self.config, name=name, artifacts=self.artifacts)
        self.run.__enter__()
        self.file = (self.out / "train.log").open("a")
        self._line(
            f"{self.model}: {train.method}, {train.epochs} epochs of {self.clips} clips, "
            f"{self.config.ray.workers} workers"
        )
        if sys.stderr.isatty():
            self.bar = tqdm(total=100 * train.epochs, desc=self.model, bar_format=_BAR, leave=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._line(f"stopped: {str(error) or type(error).__name__}")
        if self.bar is not None:
            self.bar.close()
        self.file.close()
        self.run.__exit__(kind, error, trace)

    def handle(self, event: Event) -> None:
        """One message of the progress channel."""
        if event["kind"] == "step":
            self._move(event)
        elif event["kind"] == "epoch":
            self._epoch(event)
        else:
            for rank, reason in event["workers"].items():
                self._line(f"worker {rank} failed: {reason.strip().splitlines()[-1]}")
            self._line("going on from the last checkpoint, as often as Ray may start again")

    def finish(self, result: TrainResult) -> None:
        """Write metrics.json and the whole history, also of epochs before an interruption."""
        self._write_history(result.history)
        best = result.metrics
        summary = {
            "recipe": self.config.recipe,
            "variant": self.config.variant,
            "method": self.config.train.method,
            "seed": self.config.seed,
            "epochs": len(result.history),
            "best_epoch": best["epoch"],
            "val_clips": best["val_clips"],
            "clean_acc": best["val_clean_acc"],
            "robust_acc": {
                cell: best[f"val_robust_acc_{cell}"]
                for cell in ("rgb", "skeleton", "both", "worst")
            },
            "rollbacks": sum(bool(row["rolled_back"]) for row in result.history),
            "seconds": sum(row["seconds"] for row in result.history),
            "clips_per_s": result.history[-1]["clips_per_s"],
        }
        (self.out / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
        for row in result.history:  # of which a kill or a lost channel may have kept some away
            self._log(row)
        self._log_model(result)
        self.run.log_artifact(result.best, "checkpoint")
        self.run.log_artifact(self.out / "history.csv")
        self.run.headline(
            {
                "val/clean_acc": best["val_clean_acc"],
                "val/robust_acc/worst": best["val_robust_acc_worst"],
            },
            prefix=f"{self.model}/",
        )
        self._line(
            f"{self.model}: best epoch {best['epoch']}, validation clean "
            f"{best['val_clean_acc']:.1%}, worst case {best['val_robust_acc_worst']:.1%} "
            f"on {best['val_clips']} clips"
        )

    def _move(self, event: Event) -> None:
        if self.bar is None:
            return
        done = event["epoch"] - 1 + event["step"] / event["steps"]
        self.bar.total = 100 * event["epochs"]
        self.bar.set_description_str(
            f"{self.model} epoch {event['epoch']}/{event['epochs']} step "
            f"{event['step']}/{event['steps']} loss {event['loss']:.3f} train clean "
            f"{_percent(event['train_clean_acc'])} robust {_percent(event['train_robust_acc'])} "
            f"{event['clips_per_s']:.1f} clips/s",
            refresh=False,
        )
        self.bar.n = round(100 * done)
        self.bar.refresh()

    def _epoch(self, row: Event) -> None:
        self.rows[row["epoch"]] = row
        self._write_history([self.rows[epoch] for epoch in sorted(self.rows)])
        self._line(
            f"epoch {row['epoch']}/{row['epochs']}  loss {row['loss']:.3f}  train clean "
            f"{_percent(row['train_clean_acc'])} robust {_percent(row['train_robust_acc'])}  val "
            f"clean {_percent(row['val_clean_acc'])} rgb {_percent(row['val_robust_acc_rgb'])} "
            f"skeleton {_percent(row['val_robust_acc_skeleton'])} both "
            f"{_percent(row['val_robust_acc_both'])}  {row['clips_per_s']:.1f} clips/s  "
            f"{row['seconds']:.1f} s{_streams(row)}"
        )
        if row["rolled_back"]:
            self._line(
                f"epoch {row['epoch']}: catastrophic overfitting: the training attack no longer "
                "finds what PGD finds. Weights are back at the epoch before, attack steps doubled"
            )
        self._log(row)

    def _log(self, row: Event) -> None:
        self.run.log_metrics(epoch_metrics(row), step=row["epoch"], at=row["finished_at"])

    def _log_model(self, result: TrainResult) -> None:
        """The kept checkpoint with the validation figures of its epoch."""
        if self.shards is None:
            return
        config, best = self.config, result.metrics
        about = read_config(result.best)
        clips = {"train": self.clips, "val": best["val_clips"]}
        data = {name: data_set(config.recipe, self.shards, name, n) for name, n in clips.items()}
        for name, one in data.items():
            self.run.log_data_set(one, name)
        self.run.log_model(
            about["weights_sha256"],
            self.model,
            data["val"],
            split="val",
            step=best["epoch"],
            params={k: v for k, v in flatten(config).items() if k.startswith(DECIDING)},
            tags={"variant": config.variant, "recipe": config.recipe, "seed": config.seed},
            checkpoint=result.best,
        )

    def _line(self, text: str) -> None:
        self.file.write(text + "\n")
        self.file.flush()
        if self.bar is not None:
            tqdm.write(text, file=sys.stderr)
        else:
            log.info(text)

    def _write_history(self, rows: list[Event]) -> None:
        temporary = self.out / ".history.csv.tmp"
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.out / "history.csv")


DECIDING = ("model.", "train.", "seed")  # settings that a model is told apart by
_BAR = "{desc} |{bar:20}| {percentage:3.0f} % [{elapsed}<{remaining}]"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _streams(row: Event) -> str:
    """What each head knows alone, clean and under the joint attack, and the video's weight."""
    text = ""
    if row.get("val_rgb_acc_clean") is not None:
        heads = (
            f"{m} {_percent(row[f'val_{m}_acc_clean'])}/{_percent(row.get(f'val_{m}_acc_both'))}"
            for m in MODALITIES
        )
        text += f"  heads alone {' '.join(heads)}"
    if row.get("val_weight_clean") is not None:
        text += (
            f"  video's weight {row['val_weight_clean']:.2f} ± {row['val_weight_std_clean']:.2f}"
        )
    return text
