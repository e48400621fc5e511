"""What is registered is what was evaluated."""

import json
from typing import Any

from components.checkpoint import load_model, save_checkpoint
from pipelines import register


def test_the_evaluation_of_another_checkpoint_is_refused(project: Any, capsys: Any) -> None:
    (folder,) = (project.artifacts / "train").glob("*/best")
    (evaluation,) = (project.artifacts / "evaluation").glob("amr*.json")
    model, config = load_model(folder)
    summary = json.loads(evaluation.read_text())
    evaluation.write_text(json.dumps({**summary, "checkpoint_sha256": config["weights_sha256"]}))
    for parameter in model.parameters():
        parameter.data.mul_(1.01)
    save_checkpoint(folder, model, config)
    assert register.run_stage("register", register.main, project.words) == 2
    assert "another checkpoint" in capsys.readouterr().err
    assert not (project.artifacts / "registered.json").exists()
