"""`python -m pipelines.register`: a version in the MLflow registry, and perhaps a new champion."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from components.checkpoint import load_model
from components.datasets import describe, select_split
from components.shards import ShardSet
from mlflow_tracking import lineage, names, registry, store
from mlflow_tracking.card import render
from mlflow_tracking.files import write_json
from mlflow_tracking.gate import Decision, decide
from mlflow_tracking.outbox import newest
from mlflow_tracking.run import Tracker, start_run
from mlflow_tracking.serving import class_names
from pipelines._stage import Stage, StageError, run_stage

log = logging.getLogger(__name__)


def main(stage: Stage) -> None:
    """Register the model, ask the gate, and move the champion if it says so."""
    settings = stage.config.register
    candidate, data = gather(stage)
    summary = json.loads(candidate.evaluation.read_text())
    with start_run(
        "register",
        stage.config,
        name=f"{settings.model} as {settings.name}",
        artifacts=stage.artifacts,
        tags={"model": settings.model},
        description=f"Registers {settings.model} as `{settings.name}` and asks the gate.",
    ) as run:
        run.headline(names.evaluation_metrics(summary), f"{settings.model}/")
        try:
            result = register(stage, candidate, data, run)
        except Exception as error:
            if not store.is_absence(error):
                raise
            result = _postponed(stage, error)
        run.log_text(json.dumps(result, indent=2), "registered.json")
    write_json(stage.artifacts / "registered.json", result)
    print(f"{result['decision']}: {settings.name} version {result['version']}")
    for reason in result["reasons"]:
        print(f"  {reason}")


def gather(stage: Stage) -> tuple[registry.Candidate, dict[str, Any]]:
    """The candidate with its files, and what the data set says of itself."""
    model = stage.config.register.model
    folder = stage.require(stage.artifacts / "train" / model / "best", "train")
    evaluation = stage.require(stage.artifacts / "evaluation" / f"{model}.json", "evaluate")
    _, checkpoint = load_model(folder)  # A file that is no checkpoint is refused here.
    shards = ShardSet.open(stage.shards, cache_gb=stage.config.shard.cache_gb, verify=False)
    data = describe(stage.config.data, shards, select_split(shards, stage.config.data))
    summary = json.loads(evaluation.read_text())
    if summary.get("checkpoint_sha256") not in (None, checkpoint["weights_sha256"]):
        raise StageError(
            f"{evaluation} is the evaluation of another checkpoint than {folder}; "
            "run `python -m pipelines.evaluate` first"
        )
    terms = {
        "suite": summary.get("suite_hash"),
        "threat": summary.get("threat_fingerprint"),
        "protocol": data["protocol"],
        "shards": data["fingerprint"],
        "classes": checkpoint["classes"],
    }
    candidate = registry.Candidate(
        model=model,
        checkpoint=folder,
        evaluation=evaluation,
        records=evaluation.with_suffix(".arrow"),
        shards={k: v for k, v in shards.index.items() if k not in ("shards", "rejected")},
        terms=terms,
    )
    return candidate, data


def register(
    stage: Stage, candidate: registry.Candidate, data: dict[str, Any], run: Tracker
) -> dict[str, Any]:
    """Add the version unless it is there, decide, move aliases; the body of `registered.json`."""
    config, settings = stage.config, stage.config.register
    uri = store.tracking_uri(config.tracking)
    store.require_answer(uri)
    mlflow = store.client(uri)
    run_id = run.wait_for_id()
    present = registry.champion(mlflow, settings.name)
    version = registry.find_version(mlflow, settings.name, candidate.identity)
    rival = present[1] if present and present[0] != version else None
    decision = decide(candidate.evaluated(), rival, settings, data["test"])
    facts = _facts(stage, candidate)
    if version is None:
        _, checkpoint = load_model(candidate.checkpoint)
        summary = candidate.evaluated().summary
        card = render(
            config,
            model=candidate.model,
            checkpoint=checkpoint,
            classes=class_names(checkpoint["classes"], candidate.shards["source"]),
            data=data,
            summary=summary,
            decision=decision,
            lineage=lineage.tags(facts),
        )
        tags = {
            "model": candidate.model,
            **candidate.identity,
            **lineage.tags(facts),
            **{k: f"{v:.4f}" for k, v in names.evaluation_metrics(summary).items()},
        }
        version = registry.add_version(
            candidate,
            name=settings.name,
            run_id=run_id,
            uri=uri,
            card=card,
            facts=facts,
            config=checkpoint,
            tags=tags,
        )
        run.log_text(card, "card.md")
    registry.crown(mlflow, settings.name, version, decision)
    run.set_tags({"gate": "passed" if decision.promote else "failed", "version": version})
    return _result(stage, decision, version, present[0] if present else None, run_id)


def _facts(stage: Stage, candidate: registry.Candidate) -> dict[str, Any]:
    runs = {
        f"{name}_run": newest(stage.artifacts, name, candidate.model)
        for name in ("train", "evaluate")
    }
    return {
        **lineage.collect(stage.config, stage.artifacts),
        "suite_hash": candidate.terms["suite"],
        **{key: box.state()["run_id"] or box.key for key, box in runs.items() if box},
    }


def _result(
    stage: Stage, decision: Decision, version: str, champion: str | None, run_id: str
) -> dict[str, Any]:
    name = stage.config.register.name
    now = version if decision.promote else champion
    return {
        "model": stage.config.register.model,
        "name": name,
        "version": int(version),
        "alias": registry.CHAMPION if decision.promote else registry.CHALLENGER,
        "decision": "promoted" if decision.promote else "not promoted",
        "champion": int(now) if now else None,
        **decision.to_json(),
        "run_id": run_id,
        "uri": f"models:/{name}/{version}",
    }


def _postponed(stage: Stage, error: Exception) -> dict[str, Any]:
    settings = stage.config.register
    log.warning("the registry is away: %s", error)
    return {
        "model": settings.model,
        "name": settings.name,
        "version": None,
        "alias": None,
        "decision": "postponed",
        "promote": False,
        "reasons": [f"the registry does not answer ({error}); later: python -m pipelines.sync"],
        "checks": [],
    }


def postponed(artifacts: Path) -> bool:
    """Whether a registration waits for a server."""
    path = artifacts / "registered.json"
    return path.is_file() and json.loads(path.read_text()).get("decision") == "postponed"


if __name__ == "__main__":
    sys.exit(run_stage("register", main))
