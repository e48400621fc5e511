"""The card of an exported model: YAML that the Hugging Face Hub reads, then what people read.

Every figure is one of `evaluation/<run>.json`, with its interval and its number of clips.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mlflow_tracking.card import accuracies
from mlflow_tracking.gate import raised_flags

NTU_TERMS = "https://rose1.ntu.edu.sg/dataset/actionRecognition/"
DATA_NAMES = {
    "ntu": "NTU-RGB+D",
    "utd_mhad": "UTD-MHAD",
    "utd_mhad_depth": "UTD-MHAD (depth as video)",
    "imigue": "iMiGUE",
}
SYNTHETIC = "Synthetic sample in NTU-RGB+D format"


@dataclass(frozen=True)
class Facts:
    """What the card is made of.

    model: the model section of the checkpoint; data: what `components.datasets.describe` says;
    summary: `evaluation/<run>.json`; commit: of the code that exported it
    """

    name: str
    model: Mapping[str, Any]
    classes: Sequence[str]
    data: Mapping[str, Any]
    synthetic: bool
    summary: Mapping[str, Any]
    method: str
    commit: str | None

    @property
    def data_name(self) -> str:
        """Of the data set, for people."""
        source = str(self.data["source"])
        return SYNTHETIC if self.synthetic else DATA_NAMES.get(source, source)


def render(facts: Facts) -> str:
    """README.md: front matter and text."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, width=10_000, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(_text(facts)) + "\n"


def front_matter(facts: Facts) -> dict[str, Any]:
    """The model's metadata by the Hub's names (huggingface.co/docs/hub/model-cards)."""
    metrics = [
        {
            "type": "accuracy",
            "name": f"{what} (95 % interval {100 * low:.1f}-{100 * high:.1f} %, {n} clips)",
            "value": round(value, 4),
        }
        for what, value, low, high, n in _headlines(facts.summary)
    ]
    result = {
        "task": {"type": "video-classification", "name": "Action recognition"},
        "dataset": {
            "name": facts.data_name,
            "type": "synthetic" if facts.synthetic else str(facts.data["source"]),
            "config": str(facts.data["protocol"]),
            "split": "test",
        },
        "metrics": metrics,
    }
    return {
        **_licence(facts),
        "pipeline_tag": "video-classification",
        "tags": [
            *("action-recognition", "skeleton", "adversarial-robustness", "safetensors"),
            f"fusion-{facts.model.get('fusion', 'unknown')}",
        ],
        "metrics": ["accuracy"],
        "model-index": [{"name": facts.name, "results": [result]}],
    }


def _licence(facts: Facts) -> dict[str, str]:
    if facts.synthetic:
        return {"license": "apache-2.0"}
    known = {"license_link": NTU_TERMS} if facts.data["source"] == "ntu" else {}
    name = str(facts.data["source"]).replace("_", "-")
    return {"license": "other", "license_name": f"{name}-terms", **known}


def _headlines(summary: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float, int]]:
    """(what, value, low, high, clips) of the clean accuracy and of the worst case by cell."""
    rows = [("clean accuracy", summary["clean_acc"])]
    rows += [(f"robust accuracy, {cell}", a) for cell, a in summary.get("worst", {}).items()]
    for what, a in rows:
        if a["value"] is not None:
            yield what, a["value"], a["low"], a["high"], a["n"]


def _text(facts: Facts) -> Iterator[str]:
    summary, data, model = facts.summary, facts.data, facts.model
    yield f"# {facts.name}"
    yield ""
    yield (
        f"Classifies {len(facts.classes)} human actions from a short video and the skeletons of "
        f"the people in it: {model.get('rgb')} and {model.get('skeleton')}, joined by "
        f"`{model.get('fusion')}`, trained with the method `{facts.method}`, measured while an "
        "adversary perturbs pixels, joints, or both."
    )
    if facts.synthetic:
        yield ""
        yield (
            "**Trained and tested on a synthetic sample.** The figures show that the pipeline "
            "works, and say nothing about NTU-RGB+D."
        )
    yield from _section(f"Results: {summary['clips']} test clips, seed {summary.get('seed', '?')}")
    yield "| | accuracy | 95 % interval |"
    yield "|---|--:|---|"
    for row in accuracies(summary):
        yield f"| {row['what']} | {row['value']} | {row['interval']} |"
    yield ""
    yield (
        "Robust accuracy: the share of all test clips that are right on the clean input *and* on "
        f"every adversarial input that the suite `{summary.get('suite')}` found. Gradient-masking "
        f"checks: {_checks(summary)}. One seed: another one gives other figures."
    )
    yield from _section("Threat model")
    yield "The attacker knows the model. Perturbations are of raw inputs; absent people stay so."
    yield ""
    for modality, budget in (summary.get("threat") or {}).items():
        if isinstance(budget, Mapping):
            unit = "of [0, 1] pixels" if modality == "rgb" else str(data["unit"])
            yield f"- {modality}: {budget['norm']} at most {budget['eps']:.4g} {unit}"
    yield from _section("Data")
    yield (
        f"{facts.data_name}, protocol `{data['protocol']}`: {data['train']} training, "
        f"{data['val']} validation and {data['test']} test clips. Classes, in the order of the "
        "logits: " + ", ".join(facts.classes) + "."
    )
    yield from _section("Use")
    frames, size, steps = (model[k] for k in ("rgb_frames", "rgb_size", "skeleton_frames"))
    yield (
        f"Inputs: `rgb` float [B, 3, {frames}, {size}, {size}] in [0, 1]; `skeleton` float "
        f"[B, 3, {steps}, 25, 2] in {data['unit']}; `present` bool [B, {steps}, 2], true where "
        "that person was tracked. Output: `.logits` [B, "
        f"{len(facts.classes)}]. With the project's code:"
    )
    yield ""
    yield "```python"
    yield "from components.checkpoint import load_model"
    yield ""
    yield "model, config = load_model('FOLDER')   # safetensors and JSON: nothing is unpickled"
    yield "logits = model(rgb, skeleton, present).logits"
    yield "```"
    yield ""
    yield "Raw clips, cropped and sampled as in training: `amr predict CLIPS --model FOLDER`."
    yield from _section("Limits")
    yield "- Robust within these budgets, against these attacks; a stronger attack may find more."
    yield "- Other cameras, occlusion, patches or new classes were not measured."
    yield "- Not for decisions about persons, or where a wrong class does harm."
    yield from _section("Licence")
    yield _terms(facts)
    yield from _section("Lineage")
    for key, value in (
        ("commit", facts.commit),
        ("weights (sha256)", summary.get("checkpoint_sha256")),
        ("attack suite", f"{summary.get('suite')} {summary.get('suite_hash', '')}".strip()),
        ("shards", data["fingerprint"]),
    ):
        if value:
            yield f"- {key}: `{value}`"


def _section(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _checks(summary: Mapping[str, Any]) -> str:
    raised = raised_flags(summary)
    return f"**{', '.join(raised)}**" if raised else str(summary.get("flagged", "not run"))


def _terms(facts: Facts) -> str:
    if facts.synthetic:
        return "Code and weights: Apache-2.0; the training clips are synthetic."
    text = (
        f"The code is Apache-2.0. The weights are derived from {facts.data_name} and bound by its "
        "terms: read them before you pass the weights on."
    )
    if facts.data["source"] == "ntu":
        text += f" NTU-RGB+D is licensed by the ROSE Lab for academic research only ({NTU_TERMS})."
    return text
