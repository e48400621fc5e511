"""`python -m pipelines.register`: a version in the MLflow registry, and perhaps a new champion."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from components.checkpoint import load_model, read_config
from components.datasets import describe, select_split
from components.files import read_json, write_json
from components.shards import ShardSet
from mlflow_tracking import lineage, names, registry, store
from mlflow_tracking.card import render
from mlflow_tracking.evaluation import model_tags, test_split
from mlflow_tracking.gate import Decision, decide
from mlflow_tracking.record import newest
from mlflow_tracking.run import Run, start_run
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
        name=f"{candidate.model} as {settings.name}",
        artifacts=stage.artifacts,
        tags={"model": candidate.model, "variant": settings.variant},
        description=f"Registers {candidate.model} as `{settings.name}` and asks the gate.",
    ) as run:
        run.headline(names.evaluation_metrics(summary), f"{candidate.model}/")
        try:
            result = register(stage, candidate, data, run)
        except Exception as error:
            if not store.is_unreachable(error):
                raise
            result = _postponed(stage, candidate.model, error)
        run.log_text(json.dumps(result, indent=2), "registered.json")
    write_json(stage.artifacts / "registered.json", result)
    print(f"{result['decision']}: {settings.name} version {result['version']}")
    for reason in result["reasons"]:
        print(f"  {reason}")


def gather(stage: Stage) -> tuple[registry.Candidate, dict[str, Any]]:
    """The candidate with its files, and what the data set says of itself."""
    model = best_run(stage)
    folder = stage.require(stage.artifacts / "train" / model / "best", "train")
    evaluation = stage.require(stage.artifacts / "evaluation" / f"{model}.json", "evaluate")
    _, checkpoint = load_model(folder)  # A file that is no checkpoint is refused here.
    shards = ShardSet.open(stage.shards, cache_gb=stage.config.shard.cache_gb, verify=False)
    data = describe(stage.config.data, shards, select_split(shards, stage.config.data))
    summary = json.loads(evaluation.read_text())
    if summary.get("checkpoint_sha256") != checkpoint["weights_sha256"]:
        raise StageError(
            f"{evaluation} is the evaluation of another checkpoint than {folder}; "
            "run `python -m pipelines.evaluate` first"
        )
    candidate = registry.Candidate(
        model=model,
        checkpoint=folder,
        evaluation=evaluation,
        records=evaluation.with_suffix(".arrow"),
        shards={k: v for k, v in shards.index.items() if k not in ("shards", "rejected")},
    )
    return candidate, data


def best_run(stage: Stage) -> str:
    """The run of `register.variant` with the best seed on validation clips, not on test clips."""
    variant = stage.config.register.variant
    found = {}
    for path in sorted((stage.artifacts / "train").glob(f"{variant}-s*/metrics.json")):
        if path.parent.name.rpartition("-s")[0] == variant:
            body = read_json(path)
            found[path.parent.name] = (body["robust_acc"]["worst"], body["clean_acc"])
    if not found:
        raise StageError(
            f"no trained {variant} under {stage.artifacts / 'train'}; run "
            f"`python -m pipelines.train variant={variant}`, or set register.variant"
        )
    return max(found, key=lambda run: found[run])


def register(
    stage: Stage, candidate: registry.Candidate, data: dict[str, Any], run: Run
) -> dict[str, Any]:
    """Add the version unless it is there, decide, move aliases; the body of `registered.json`."""
    config, settings = stage.config, stage.config.register
    uri = store.tracking_uri(config.tracking)
    store.require_answer(uri)
    mlflow = store.client(uri)
    run_id, model_id = _linked(stage, candidate, run, candidate.identity["checkpoint_sha256"])
    present = registry.champion(mlflow, settings.name)
    version = registry.find_version(mlflow, settings.name, candidate.identity)
    rival = present[1] if present and present[0] != version else None
    decision = decide(candidate.evaluated(), rival, settings, data["test"])
    facts = _facts(stage, candidate)
    if version is None:
        if registry.in_use(mlflow, settings.name, model_id):
            # Measured again on other terms: the version of before keeps its files.
            key = "-".join(candidate.identity.values())
            run_id, model_id = _linked(stage, candidate, run, key)
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
            model_id=model_id,
            uri=uri,
            card=card,
            facts=facts,
            config=checkpoint,
            tags=tags,
        )
        run.log_text(card, "card.md")
    registry.assign_aliases(mlflow, settings.name, version, decision)
    run.set_tags({"gate": "passed" if decision.promote else "failed", "version": version})
    return _result(stage, candidate, decision, version, present[0] if present else None, run_id)


def _linked(stage: Stage, candidate: registry.Candidate, run: Run, key: str) -> tuple[str, str]:
    """The ids of the run and of MLflow's model of the candidate, which has its figures now."""
    summary = candidate.evaluated().summary
    data = test_split(stage.config, summary, candidate.shards["fingerprint"], stage.shards)
    run.log_data_set(data, "test")
    about = {"params": _params(candidate), "tags": model_tags(summary)}
    run.log_model(key, candidate.model, data, split="test", **about)
    run_id, model_id = run.publish(), run.model_id(key)
    if model_id is None:
        raise StageError(f"MLflow refused the model of run {run.key}; the lines above say why")
    return run_id, model_id


def _params(candidate: registry.Candidate) -> dict[str, Any]:
    section = read_config(candidate.checkpoint)["model"]
    return {f"model.{name}": value for name, value in section.items()}


def _facts(stage: Stage, candidate: registry.Candidate) -> dict[str, Any]:
    runs = {
        f"{name}_run": newest(stage.artifacts, name, candidate.model)
        for name in ("train", "evaluate")
    }
    return {
        **lineage.collect(stage.config, stage.artifacts),
        "suite_hash": read_json(candidate.evaluation).get("suite_hash"),
        **{key: run.published()["run_id"] or run.key for key, run in runs.items() if run},
    }


def _result(
    stage: Stage,
    candidate: registry.Candidate,
    decision: Decision,
    version: str,
    champion: str | None,
    run_id: str,
) -> dict[str, Any]:
    name = stage.config.register.name
    now = version if decision.promote else champion
    return {
        "run": candidate.model,
        "variant": stage.config.register.variant,
        "name": name,
        "version": int(version),
        "alias": registry.CHAMPION if decision.promote else registry.CHALLENGER,
        "decision": "promoted" if decision.promote else "not promoted",
        "champion": int(now) if now else None,
        **decision.to_json(),
        "run_id": run_id,
        "uri": f"models:/{name}/{version}",
    }


def _postponed(stage: Stage, run: str, error: Exception) -> dict[str, Any]:
    settings = stage.config.register
    why = store.redact(str(error))
    log.warning("the registry does not answer: %s", why)
    return {
        "run": run,
        "variant": settings.variant,
        "name": settings.name,
        "version": None,
        "alias": None,
        "decision": "postponed",
        "promote": False,
        "reasons": [f"the registry does not answer ({why}); later: python -m pipelines.sync"],
        "checks": [],
    }


def postponed(artifacts: Path) -> bool:
    """Whether a registration waits for a server."""
    path = artifacts / "registered.json"
    return path.is_file() and json.loads(path.read_text()).get("decision") == "postponed"


if __name__ == "__main__":
    sys.exit(run_stage("register", main))
