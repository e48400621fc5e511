"""`python -m pipelines.recipe NAME [key=value ...]`: fill params.yaml from a recipe."""

import argparse
import sys

from components.config import apply_overrides, parse_overrides, to_dict
from components.config.recipes import compose, recipe_names, recipes_folder, to_yaml
from components.errors import UserError
from components.files import write_text
from pipelines._stage import ROOT


def main(argv: list[str] | None = None) -> int:
    """Compose the defaults and a recipe into params.yaml, which everything else reads."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipe", description=(main.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("name", nargs="?", help="a file in recipes/; none: list them")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. seeds=[0,1]")
    args = parser.parse_intermixed_args(argv)
    params = ROOT / "params.yaml"
    folder = recipes_folder(params)
    if args.name is None:
        for name in recipe_names(folder):
            first, *_ = (folder / f"{name}.yaml").read_text().splitlines()
            print(f"{name:<10} {first.lstrip('# ')}")
        return 0
    try:
        values = compose(folder, args.name)
        changed = apply_overrides(values, parse_overrides(args.overrides))
        write_text(params, to_yaml(values, to_dict(changed)))
    except UserError as error:
        print(f"recipe: {error}", file=sys.stderr)
        return 2
    print(f"{params} holds recipe {args.name}; now `dvc repro`, or any stage")
    return 0


if __name__ == "__main__":
    sys.exit(main())
