"""Recipes and variants: named settings, in files under `recipes/`.

A recipe (`recipes/<name>.yaml`) says what differs from the defaults in code, or from the recipe
that it names as its `base`, so that together with them it is complete. `compose` joins both;
`python -m pipelines.recipe NAME` writes the result to `params.yaml`, the one file that DVC, every
stage, jobs and notebooks read.

A variant (`recipes/variants.yaml`) is what a table compares: a name, and the settings it changes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

import components
from components.config.base import to_dict
from components.config.evaluate import check_name
from components.config.load import ConfigError, apply_overrides, nearest, read_yaml
from components.config.root import Config

VARIANTS = "variants"
BASE = "base"  # key of a recipe: the recipe whose settings it changes, as a fold of a data set does
COMPOSED = "composed"  # key of params.yaml: which recipe its values came from, and in which state
# Where things lie and run is not a recipe's business: a command keeps it from params.yaml.
WHERE = ("ray", "tracking")
MAPPINGS = ("tune.space", "data.custom")  # settings whose value is a mapping


def recipes_folder(params: Path) -> Path:
    """`recipes/` beside the settings file, else the project's own."""
    beside = params.absolute().parent / "recipes"
    return beside if beside.is_dir() else Path(components.__file__).parents[1] / "recipes"


def recipe_names(folder: Path) -> list[str]:
    """All recipes, by name."""
    return sorted(p.stem for p in folder.glob("*.yaml") if p.stem != VARIANTS)


def compose(folder: Path, name: str) -> dict[str, Any]:
    """The complete settings of a recipe as plain values. ConfigError for an unknown one."""
    dotted = {"recipe": name, "paths.artifacts": f"artifacts/{name}", **_changes(folder, name)}
    try:
        config = apply_overrides(Config(), dotted)
        _check_variants(folder, config)
    except ConfigError as error:
        raise ConfigError(f"{folder / name}.yaml: {error}") from error
    return to_dict(config)


def _changes(folder: Path, name: str) -> dict[str, Any]:
    """What a recipe and its base change of the defaults, by dotted name."""
    names = recipe_names(folder)
    if name not in names:
        raise ConfigError(f"no recipe {name!r} in {folder}{nearest(name, names)}")
    own = read_yaml(folder / f"{name}.yaml")
    if "recipe" in own or COMPOSED in own:
        raise ConfigError(f"{folder / name}.yaml: a recipe is named by its file; remove `recipe`")
    base = own.pop(BASE, None)
    if base is None:
        return dict(_leaves(own))
    if base not in names:
        raise ConfigError(f"{folder / name}.yaml: no recipe {base!r}{nearest(str(base), names)}")
    if BASE in read_yaml(folder / f"{base}.yaml"):
        raise ConfigError(
            f"{folder / name}.yaml: its base {base} has a base itself; name that one, so that a "
            "recipe is read in two files at most"
        )
    return {**_changes(folder, base), **dict(_leaves(own))}


def state(values: Mapping[str, Any]) -> str:
    """Name and hash of a recipe's composed settings, as `params.yaml` records them."""
    text = json.dumps(values, sort_keys=True)
    return f"{values['recipe']}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def base_values(params: Path, words: Mapping[str, Any]) -> dict[str, Any]:
    """What a command starts from: the file's values, or those of the recipe it names.

    ConfigError when the file names another recipe than the one that it was composed from.
    """
    tree = read_yaml(params)
    _check_paths(params, tree)
    composed = str(tree.pop(COMPOSED, ""))
    mine = tree.get("recipe", Config().recipe)
    name = composed.partition("@")[0] or mine
    if mine != name:
        raise ConfigError(
            f"{params} says recipe: {mine}, but its values are those of {name}; "
            f"run `python -m pipelines.recipe {mine}`"
        )
    wanted = words.get("recipe", mine)
    if wanted == mine:
        return tree
    other = compose(recipes_folder(params), str(wanted))
    return {**other, **{key: tree[key] for key in WHERE if key in tree}}


def _check_paths(params: Path, tree: Mapping[str, Any]) -> None:
    """ConfigError for a path that the stages would read otherwise than DVC, which expands nothing.

    On a command line, which DVC does not see, `~` and a leading variable are expanded.
    """
    section = tree.get("paths")
    for key, text in section.items() if isinstance(section, dict) else ():
        if isinstance(text, str) and text.startswith(("~", "$", "file:")):
            raise ConfigError(
                f"{params}: paths.{key}={text}: DVC takes this file's paths as they stand; write "
                "the whole path, or a link to it inside the project"
            )


def variant_settings(params: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    """What the variant of `tree` changes, by dotted name."""
    name = tree.get("variant", Config().variant)
    table = read_variants(recipes_folder(params))
    if name not in table:
        raise ConfigError(f"no variant {name!r} in recipes/variants.yaml{nearest(name, table)}")
    return table[name]


def read_variants(folder: Path) -> dict[str, dict[str, Any]]:
    """All variants: name -> dotted settings. ConfigError for what is no such mapping."""
    table = read_yaml(folder / f"{VARIANTS}.yaml")
    for name, changed in table.items():
        check_name(f"{folder}/{VARIANTS}.yaml: a variant", str(name))  # files and models go by it
        if not isinstance(changed or {}, dict):
            raise ConfigError(f"{folder}/{VARIANTS}.yaml: {name} must map settings to values")
    return {name: changed or {} for name, changed in table.items()}


def check_fusion(params: Path, tree: Mapping[str, Any], words: Mapping[str, Any]) -> None:
    """ConfigError when an override asks for another fusion than the variant it is filed under."""
    wanted, has = words.get("model.fusion"), tree.get("model", {}).get("fusion", "amr")
    if wanted is None or wanted == has:
        return
    table = read_variants(recipes_folder(params))
    fit = [name for name, changed in table.items() if changed.get("model.fusion") == wanted]
    hint = f"use variant={fit[0]}" if fit else "add a variant for it to recipes/variants.yaml"
    raise ConfigError(
        f"model.fusion={wanted}, but the variant {tree.get('variant', 'amr')!r} has {has}: results "
        f"go by the variant's name, so {hint}"
    )


def to_yaml(values: Mapping[str, Any], changed: Mapping[str, Any] | None = None) -> str:
    """A composed recipe as the text of `params.yaml`, with the meaning of every setting.

    changed: the values to write where they are no longer the recipe's own
    """
    head = (
        f"# Composed from recipes/{values['recipe']}.yaml by `python -m pipelines.recipe "
        f"{values['recipe']}`.\n# Every value in use; edit it, or set one for one run: "
        "python -m pipelines.train train.epochs=2\n"
    )
    lines = [head + f"{COMPOSED}: {state(values)}  # the recipe, as it was then"]
    _lines(Config(), changed or values, "", lines)
    return "\n".join(lines) + "\n"


def _lines(section: Any, values: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for f in fields(section):
        value = values[f.name]
        if is_dataclass(getattr(section, f.name)):
            doc = (type(getattr(section, f.name)).__doc__ or "").strip().splitlines()[0]
            lines += ([""] if not indent else []) + [f"{indent}{f.name}:  # {doc}"]
            _lines(getattr(section, f.name), value, indent + "  ", lines)
            continue
        text = as_text(value)
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{f.name}:  # {meaning(f)}")
            for key, one in value.items():
                lines.append(f"{indent}  {key}: {as_text(one)}")
        else:
            lines.append(f"{indent}{f.name}: {text}  # {meaning(f)}")


def as_text(value: Any) -> str:
    """A value in YAML's short form; budgets on pixels as the fractions that people write."""
    if isinstance(value, float) and 0 < value <= 16 / 255 and (255 * value).is_integer():
        return f"{255 * value:.0f}/255"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def meaning(declared: Field[Any]) -> str:
    """A setting's one line, with its unit."""
    unit = declared.metadata["unit"]
    return declared.metadata["meaning"] + (f" ({unit})" if unit else "")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Any:
    """Dotted leaves of nested sections; mappings that are one setting stay whole."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in MAPPINGS:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def check_variants(params: Path, config: Config) -> None:
    """ConfigError when a setting names a variant that there is not: before training, not after."""
    table = read_variants(recipes_folder(params))
    named = {
        "compare": config.compare,
        "register.variant": (config.register.variant,),
        "evaluate.twin": (config.evaluate.twin,) if config.evaluate.twin else (),
    }
    for key, names in named.items():
        for name in names:
            if name not in table:
                raise ConfigError(f"{key}: no variant {name!r}{nearest(name, table)}")


def _check_variants(folder: Path, config: Config) -> None:
    table = read_variants(folder)
    for name in (*config.compare, config.register.variant):
        if name not in table:
            raise ConfigError(f"no variant {name!r} in variants.yaml{nearest(name, table)}")
        apply_overrides(config, table[name])
