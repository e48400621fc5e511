"""Last stage: one page to look at and one table to read, from the files of the other stages."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from components.attacks import ThreatModel
from components.config import Config, to_dict
from components.evaluation.comparable import differences_in_terms
from components.files import write_text
from components.reporting.gallery_data import gallery_data
from components.reporting.page import build_page
from components.reporting.paired import differences
from components.reporting.read import Results, read_results
from components.reporting.table import rows_of, terminal_table, to_csv
from components.reporting.train_eps import train_eps_csv, train_eps_tables
from components.reporting.words import labels_of, named_classes
from components.sample.folder import MARKER
from components.shards.storage import open_store
from components.sources import get_source
from mlflow_tracking.evaluation import log_report
from mlflow_tracking.lineage import code
from mlflow_tracking.serving import class_names
from pipelines._stage import Stage, run_stage

PACKAGES = ("torch", "ray", "mlflow", "dvc", "pyarrow", "av")


def main(stage: Stage) -> None:
    """Write artifacts/report/index.html and robustness.csv, and print the table."""
    write_report(stage)
    log_report(stage.config, stage.artifacts)
    show(stage)
    print(f"page: {stage.artifacts / 'report' / 'index.html'}")


def write_report(stage: Stage) -> None:
    """The page and the CSV file, without MLflow."""
    results = results_of(stage)
    folder = stage.artifacts / "report"
    tables = train_eps_tables(results.curves)
    page = build_page(
        results,
        title=f"Robust RGB-skeleton action recognition: {stage.config.recipe}",
        synthetic=is_synthetic(stage.raw),
        differences=differences(stage.artifacts, results),
        train_eps=tables,
        lineage=lineage(stage, results),
        gallery=gallery_of_page(results),
    )
    write_text(folder / "robustness.csv", to_csv(rows_of(results)))
    if tables:
        write_text(folder / "train_eps.csv", train_eps_csv(tables))
    write_text(folder / "index.html", page)


def results_of(stage: Stage) -> Results:
    """The runs that this recipe compares."""
    results = read_results(stage.artifacts, stage.config.compare, stage.config.seeds)
    for variant, summary in results.models.items():
        results.models[variant] = named_classes(summary, names_of(summary))
    results.notes += other_than_asked(stage.config, results)
    return results


def other_than_asked(config: Config, results: Results) -> list[str]:
    """A note when the figures were made on other terms than the present settings ask for."""
    main = results.models[results.main]
    threat = ThreatModel.from_settings(to_dict(config.threat)).fingerprint()
    asked = {**main, "recipe": config.recipe, "threat_fingerprint": threat}
    terms = differences_in_terms(main, asked)
    if not terms:
        return []
    return [
        f"the figures were made with another {' and '.join(terms)} than the present settings ask "
        "for; `python -m pipelines.evaluate` with these settings makes them anew"
    ]


def names_of(summary: dict[str, Any]) -> dict[Any, str]:
    """Names by action number, where the summary has numbers and says of which data set."""
    numbers = [row["class"] for row in summary.get("per_class") or ()]
    if "source" not in summary or not all(isinstance(number, int) for number in numbers):
        return {}
    return dict(zip(numbers, class_names(numbers, summary["source"]), strict=True))


def gallery_of_page(results: Results) -> dict[str, Any]:
    """The clips to look at, with class names and the unit of the joints."""
    main = results.models[results.main]
    unit = get_source(main["source"]).unit if "source" in main else "metres"
    return gallery_data(results.galleries, labels_of(main), unit=unit)


def show(stage: Stage) -> None:
    """Print the table of results, and what is missing or left out."""
    if is_synthetic(stage.raw):
        print("synthetic sample: no results on NTU-RGB+D")
    results = results_of(stage)
    print(terminal_table(results))
    for note in results.notes:
        print(f"note: {note}")


def is_synthetic(data: str | Path) -> bool:
    """Whether the raw data is the bundled sample, by the marker it carries."""
    return open_store(data).size(MARKER) is not None


def lineage(stage: Stage, results: Results) -> dict[str, Any]:
    """Where the figures come from."""
    main = results.models[results.main]
    facts = {
        "commit": commit(),
        "seed": main.get("seed", stage.config.seed),
        "protocol": stage.config.data.protocol,
        "joints": (get_source(main["source"]).note or None) if "source" in main else None,
        "attack suite": " ".join(str(main[k]) for k in ("suite", "suite_hash") if k in main),
        "threat model": main.get("threat_fingerprint"),
        "shards": main.get("shards_fingerprint"),
        "checkpoint": main.get("checkpoint_sha256"),
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }
    return {key: value for key, value in facts.items() if value is not None}


def commit() -> str | None:
    """The commit of the project's code, marked when files differ from it; None where unknown."""
    found, dirty = code()
    return found and found[:12] + ("-dirty" if dirty else "")


if __name__ == "__main__":
    words = sys.argv[1:]
    only_table = "--table" in words
    words = [word for word in words if word != "--table"]
    sys.exit(run_stage("report", show if only_table else main, words))
