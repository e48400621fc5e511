"""The public function: any model, its table, its records, its adversarial set."""

import json

import pytest
import torch
from torch import nn

from components.attacks import SingleStream, ThreatModel
from components.evaluation import evaluate_model, export_adversarial, replay
from components.evaluation.curves import curves, standing_grid
from components.evaluation.records import SCHEMA
from components.evaluation.summary import Records

CELLS = ("rgb", "skeleton", "both")


@pytest.fixture(scope="module")
def evaluation(honest, clips, threat):
    """One quick evaluation in two batches, worst inputs kept."""
    batches = [clips.select(torch.arange(0, 24)), clips.select(torch.arange(24, 40))]
    return evaluate_model(honest, batches, threat, "quick", keep=True)


def test_summary_has_the_contract(evaluation):
    summary = evaluation.summary
    json.dumps(summary, allow_nan=False)
    assert (summary["model"], summary["clips"]) == ("model", 40)
    for attack in ("fgsm", "pgd20", "margin_pgd", "attention_touched", "square"):
        for cell in CELLS:
            share = summary["robust_acc"][attack][cell]
            assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
            assert share["n"] == 40
            single = attack in ("fgsm", "pgd20")
            assert share["scope"] == ("individual" if single else "standing")
    worst = {cell: summary["worst"][cell]["value"] for cell in CELLS}
    assert worst["both"] <= min(worst["rgb"], worst["skeleton"]) < summary["clean_acc"]["value"]
    last = {cell: summary["robust_acc"]["square"][cell]["value"] for cell in CELLS}
    assert worst == last


def test_figures_are_counted_from_the_records(evaluation):
    table, summary = evaluation.records, evaluation.summary
    assert table.schema.equals(SCHEMA)
    records = Records(table)
    for cell in CELLS:
        broke = sum(summary["broken_by"][cell].values())
        right = summary["clean_acc"]["value"] * 40
        inherited = 0
        if cell == "both":
            fallen = [
                {i for e in summary["attacks"] for i in fooled(records, c, e["name"])}
                for c in ("rgb", "skeleton")
            ]
            inherited = len(fallen[0] | fallen[1])
        assert right - inherited - broke == pytest.approx(summary["worst"][cell]["value"] * 40)
    limits = {"rgb": 8 / 255 + 1e-6, "skeleton": 0.05 + 1e-6}
    columns = (table[name].to_pylist() for name in ("cell", "rgb_linf", "skeleton_linf"))
    for cell, size, other in zip(*columns, strict=True):
        assert size <= (limits["rgb"] if cell in ("rgb", "both") else 0)
        assert other <= (limits["skeleton"] if cell in ("skeleton", "both") else 0)


def fooled(records: Records, cell: str, attack: str) -> list[int]:
    return records.fooled(cell, attack).nonzero()[0].tolist()


def test_weights_are_told_clean_and_attacked(evaluation):
    weights = evaluation.summary["weights"]
    assert 0 < weights["clean"]["logits"][0] < 1
    assert set(weights["attacked"]["pgd20"]) == set(CELLS)
    assert len(weights["clean_by_class"]) == 4
    assert set(weights["attacked_by_class"]["0"]) == set(CELLS)


def test_costs_are_per_attack_and_cell(evaluation):
    cost = evaluation.summary["cost"]
    one = cost["attacks"]["fgsm"]["rgb"]
    right = evaluation.summary["clean_acc"]["value"] * 40
    assert one["clips"] == right and one["backward"] >= right and one["seconds"] > 0
    assert cost["total"]["forward"] > cost["total"]["backward"] > 0


def test_export_is_refused_for_licensed_data_and_replays(evaluation, honest, tmp_path):
    target = tmp_path / "adversarial.arrow"
    with pytest.raises(ValueError, match="evaluate.allow_licensed_export=true"):
        export_adversarial(evaluation.results, target, synthetic=False)
    assert not list(tmp_path.iterdir())
    export_adversarial(evaluation.results, target, synthetic=True)
    again = replay(honest, target)
    assert again == {cell: evaluation.summary["worst"][cell] for cell in CELLS}
    torch.manual_seed(5)
    untrained = type(honest)()
    assert replay(untrained, target)["both"]["n"] == 40


def test_replay_names_what_is_wrong_with_a_file(tmp_path):
    broken = tmp_path / "x.arrow"
    broken.write_bytes(b"no arrow at all")
    with pytest.raises(ValueError, match=r"x\.arrow is no Arrow file"):
        replay(nn.Identity(), broken)


def test_single_stream_model_has_one_cell(clips, threat):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2 * 3 * 16 * 16, 4)

        def forward(self, video):
            return self.head(video.flatten(1))

    summary = evaluate_model(
        SingleStream(Net(), "rgb"), clips, ThreatModel(rgb=threat.rgb), "thin", name="mine"
    ).summary
    assert list(summary["worst"]) == ["rgb"] and summary["model"] == "mine"
    assert summary["weights"] == {}


def test_output_that_is_no_number_counts_as_wrong(honest, clips, threat):
    class Broken(nn.Module):
        def forward(self, rgb, skeleton, present):
            output = honest(rgb, skeleton, present)
            off_grid = ((16 * rgb).round() - 16 * rgb).abs().amax((1, 2, 3, 4)) > 1e-3
            return output._replace(logits=output.logits.masked_fill(off_grid[:, None], torch.nan))

    coarse = clips._replace(rgb=(16 * clips.rgb).round() / 16).select(torch.arange(16))
    found = evaluate_model(Broken(), coarse, threat, "thin", checks=False)
    json.dumps(found.summary, allow_nan=False)
    worst = {cell: found.summary["worst"][cell]["value"] for cell in CELLS}
    assert worst["rgb"] == worst["both"] == 0 < worst["skeleton"]
    assert None in found.records["margin"].to_pylist()

    class Silent(nn.Module):
        def forward(self, rgb, skeleton, present):
            return torch.full((len(rgb), 4), torch.nan)

    summary = evaluate_model(Silent(), clips.select(torch.arange(16)), threat, "thin").summary
    json.dumps(summary, allow_nan=False)
    assert summary["clean_acc"]["value"] == 0 and summary["flagged"] == "fail"


def test_bad_input_is_named(honest, clips, threat):
    with pytest.raises(ValueError, match="no clips to evaluate"):
        evaluate_model(honest, [], threat)
    with pytest.raises(ValueError, match="label 9 but the model has 4 logits"):
        evaluate_model(honest, clips._replace(label=clips.label * 3), threat)


def test_grid_falls_with_both_budgets_and_joins_over_chunks(honest, clips, threat):
    factors = (0.0, 0.5, 1.0, 2.0)
    whole = standing_grid(honest, clips, threat, factors, seed=0)
    halves = [clips.select(torch.arange(0, 16)), clips.select(torch.arange(16, 40))]
    grids = [standing_grid(honest, half, threat, factors, seed=0) for half in halves]
    about = {"model": "m", "train_eps": {"rgb": 0.03, "skeleton": 0.05}}
    curve = curves(grids, clips.size, threat, factors, about)
    assert curve == curves([whole], clips.size, threat, factors, about)
    values = curve["grid"]
    assert values[0][0] > values[3][0] and values[0][0] > values[0][3]
    for i in range(4):
        assert values[i] == sorted(values[i], reverse=True)
        assert [row[i] for row in values] == sorted((row[i] for row in values), reverse=True)
    assert [a["value"] for a in curve["rgb"]] == [row[0] for row in values]
    assert curve["eps"]["rgb"] == pytest.approx([0, 4 / 255, 8 / 255, 16 / 255])
    with pytest.raises(ValueError, match="start at 0 and rise"):
        standing_grid(honest, clips, threat, (1.0, 0.5), seed=0)
