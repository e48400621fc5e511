"""`python -m pipelines.reference`: docs/settings.md and docs/api.md, made from the code.

Both pages say nothing that the code does not say; a test holds them to it.
"""

import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from components.config import Config
from components.config.base import settings_of
from components.config.recipes import as_text
from components.files import write_text
from pipelines._stage import ROOT

SETTINGS, API = ROOT / "docs" / "settings.md", ROOT / "docs" / "api.md"
NOTE = "<!-- Made by `python -m pipelines.reference`; edit the code, not this page. -->\n\n"
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
WIDTH = 96  # columns of a signature on one line

# What a notebook or a script of one's own may rely on, by what one wants to do.
PUBLIC = {
    "Clips and predictions": ("components.batch", ("Batch", "ModelOutput")),
    "Models": ("components.models", ("two_stream", "build_model", "TwoStream")),
    "Checkpoints": ("components.checkpoint", ("save_checkpoint", "load_model", "CheckpointError")),
    "Threat model": ("components.attacks", ("Budget", "ThreatModel")),
    "Evaluation": (
        "components.evaluation",
        ("evaluate_model", "Evaluation", "robust_accuracy", "robust_counts", "Entry")
        + ("export_adversarial", "read_adversarial", "replay"),
    ),
    "Training": ("components.training.step", ("train_step", "TrainTarget", "StepResult")),
    "Data": ("components.datasets", ("select_split", "ClipDataset", "BatchLoader")),
    "Shards": ("components.shards", ("ShardSet",)),
    "Settings": ("components.config", ("load_config", "apply_overrides", "to_dict")),
    "Errors": ("components.errors", ("UserError",)),
}


def settings_page() -> str:
    """Every setting, one table a section, from its declaration in `components/config`."""
    total = len(list(settings_of(Config())))
    lines = [
        "# Settings\n",
        NOTE
        + f"The {total} settings of `params.yaml`, each declared once in `components/config/`. "
        "Set one\nfor one command with `python -m pipelines.train train.epochs=2`; a list is\n"
        "written `seeds=[0,1]`, a budget `8/255`. How recipes and variants set them: "
        "[recipes](recipes.md).",
    ]
    lines += _section(Config(), "", "## Top level")
    return "\n".join(lines) + "\n"


def _section(section: Any, prefix: str, heading: str) -> Iterator[str]:
    hints = get_type_hints(type(section))
    own = [f for f in fields(section) if not is_dataclass(getattr(section, f.name))]
    yield f"\n{heading}\n\n{_paragraph(type(section))}"
    if own:
        yield "\n| setting | default | meaning | type | unit | bounds |\n|---|---|---|---|---|---|"
    for f in own:
        said, value = f.metadata, getattr(section, f.name)
        bounds = ", ".join(f"{SIGNS[name]} {b:g}" for name, b in said["bounds"].items())
        kind = ", ".join(said["choices"]) or _kind(hints[f.name])
        shown = "a mapping, see params.yaml" if isinstance(value, dict) and value else None
        default = shown or f"`{as_text(value)}`"
        cells = (f"`{prefix}{f.name}`", default, said["meaning"], kind, said["unit"], bounds)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for f in fields(section):
        inner = getattr(section, f.name)
        if is_dataclass(inner):
            level = "##" + "#" * bool(prefix)
            yield from _section(inner, f"{prefix}{f.name}.", f"{level} {prefix}{f.name}")


def _kind(hint: Any) -> str:
    """A type in words: `int`, `list of float`, the words that a Literal allows."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(map(str, inside))
    if origin is tuple:
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return "mapping"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_kind, inside))
    return {"str": "text"}.get(hint.__name__, str(hint.__name__))


def api_page() -> str:
    """The public functions: signature and first paragraph of the docstring."""
    from components.attacks import ADAPTIVE, ATTACKS

    lines = [
        "# API\n",
        NOTE + "What a notebook or a script of your own may rely on. It needs neither Ray nor "
        "MLflow; shapes, units and\nerrors in full are in the docstrings "
        "(`help(two_stream)`). Tensors are those of\n"
        "[the contracts](architecture.md#contracts-in-code).",
    ]
    for title, (module, names) in PUBLIC.items():
        lines.append(f"\n## {title}\n\n`from {module} import {', '.join(names)}`")
        for name in names:
            lines += _entry(name, getattr(import_module(module), name))
    lines.append(
        "\n## Attacks\n\n`from components.attacks import ATTACKS`: by name, all called as "
        "`attack(model, batch, threat, seed=0, **parameters)`\nand listed with their costs in "
        "[attacks](attacks.md)."
    )
    for name, attack in ATTACKS.items():
        function = inspect.unwrap(attack)  # without the look at its clips
        # A partial has the parameters as they are fixed, and no words of its own.
        lines += _entry(name, attack, getattr(function, "func", function))
        if name in ADAPTIVE:
            lines.append("\nAdaptive: needs heads or weights of the model.")
    return "\n".join(lines) + "\n"


def _entry(name: str, thing: Any, described: Any = None) -> Iterator[str]:
    yield f"\n### {name}\n"
    if not (inspect.isclass(thing) and issubclass(thing, Exception)):
        yield f"```python\n{signature(name, thing)}\n```\n"
    yield _paragraph(described or thing)


def signature(name: str, thing: Any) -> str:
    """`name(...)` as one would write it, a parameter a line where it is long."""
    found = inspect.signature(thing)
    parameters = [_short(str(p)) for p in found.parameters.values()]
    kinds = [p.kind for p in found.parameters.values()]
    only = inspect.Parameter.KEYWORD_ONLY
    if only in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(only), "*")
    ends = found.return_annotation
    says = "" if inspect.isclass(thing) or ends is found.empty else f" -> {_short(_named(ends))}"
    line = f"{name}({', '.join(parameters)}){says}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {p},\n" for p in parameters) + f"){says}"


def _named(annotation: Any) -> str:
    return inspect.formatannotation(annotation).strip("'")


def _short(text: str) -> str:
    """Names of types and functions without the modules or places that they come from."""
    text = re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text).replace("NoneType", "None")


def _paragraph(thing: Any) -> str:
    text = inspect.getdoc(thing)
    assert text, f"{thing} has no docstring"
    return text.split("\n\n")[0]


def main() -> int:
    """Write both pages."""
    for path, text in ((SETTINGS, settings_page()), (API, api_page())):
        write_text(path, text)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
