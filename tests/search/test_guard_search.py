"""The search judges by what it may see: each test fails on a small break that once went unseen."""

from pathlib import Path

import pytest
import torch

from components.checkpoint import save_checkpoint
from components.config import to_dict
from components.config.load import load_config
from components.models import build_model
from pipelines._finalists import score_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_search: list[str]):
    """Settings by which two subjects validate, and the checkpoint of an untrained model."""
    config = load_config(
        Path(__file__).resolve().parents[2] / "params.yaml",
        [*tiny_search, "data.train_subjects=[1,2,3,4]", "data.val_subjects=[2,3]"],
    )
    spec = to_dict(config.model)
    torch.manual_seed(0)
    model = build_model({**spec, "num_classes": 3})
    about = {"model": spec, "num_classes": 3, "classes": [1, 2, 3]}
    save_checkpoint(tmp_path / "best", model, about)
    return config, tmp_path / "best"


def test_the_second_rung_reads_validation_clips_alone(checkpoint, tiny_shards) -> None:
    config, folder = checkpoint
    found = score_checkpoint(config, str(tiny_shards), folder, "thin")
    assert found["clean"]["n"] == 16  # two subjects of eight clips; one subject tests
    assert {cell["n"] for cell in found["cells"].values()} == {16}
    assert score_checkpoint(config, str(tiny_shards), folder, "thin", clips=5)["clean"]["n"] == 5


def test_the_second_rung_s_score_is_that_of_the_worst_cell(checkpoint, tiny_shards) -> None:
    config, folder = checkpoint
    found = score_checkpoint(config, str(tiny_shards), folder, "thin")
    values = {name: cell["value"] for name, cell in found["cells"].items()}
    assert set(values) == {"rgb", "skeleton", "both"}
    assert found["robust"]["value"] == min(values.values())
