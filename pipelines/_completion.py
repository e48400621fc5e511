"""`amr completion bash|zsh`: the script for the shell, and the answers that the script asks for.

Words come from the declared settings (`components/config`), never from torch, Ray or MLflow: an
answer must be there before anyone notices.
"""

import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import Field
from pathlib import Path
from typing import Any

from pipelines._commands import COMMANDS, Command
from pipelines._terminal import ended_politely

SHELLS = ("bash", "zsh")
ROOT = Path(__file__).resolve().parent.parent
ANSWER = "--line"  # `amr completion --line "amr train tra"` prints what may stand for the last word

BASH = r"""
_amr() {
  local line=${COMP_LINE:0:COMP_POINT}
  local word=${line##*[[:space:]]} IFS=$'\n'
  COMPREPLY=($("${1/#\~/$HOME}" completion --line "$line" 2>/dev/null))
  # Bash cuts words at "=" and expects the part behind it.
  if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
  fi
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _amr amr
"""
ZSH = r"""
#compdef amr
_amr() {
  local -a found whole open
  local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
  found=(${(f)"$(${words[1]/#\~/$HOME} completion --line "$line" 2>/dev/null)"})
  # What ends in "=" or "." goes on without a space.
  open=(${(M)found:#*[=.]})
  whole=(${found:|open})
  (( $#open )) && compadd -S '' -- $open
  (( $#whole )) && compadd -- $whole
  if (( ! $#found )); then
    compset -P '*='
    _files
  fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _amr "$@"; else compdef _amr amr; fi
"""


def main(argv: list[str] | None = None) -> int:
    """Print the script of a shell, or what may stand for the last word of a line."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) == 2 and words[0] == ANSWER:
        print("\n".join(candidates(words[1])))
        return 0
    if words and words[0] in SHELLS:
        print((BASH if words[0] == "bash" else ZSH).strip())
        return 0
    asked = words[:1] in (["-h"], ["--help"])
    print(
        "usage: amr completion bash|zsh\n\n"
        'bash: put `eval "$(amr completion bash)"` into ~/.bashrc\n'
        'zsh:  put `eval "$(amr completion zsh)"` behind `compinit` in ~/.zshrc',
        file=sys.stdout if asked else sys.stderr,
    )
    return 0 if asked else 2


def candidates(line: str) -> list[str]:
    """What may stand for the last word of a command line that ends at the cursor, sorted."""
    words = line.split()
    word = words.pop() if line and not line[-1].isspace() else ""
    return sorted({w for w in _words(words, word) if w.startswith(word)})


def _words(before: list[str], word: str) -> Iterable[str]:
    if len(before) < 2:
        return [*COMMANDS, "--help"] if before else []
    command = COMMANDS.get(before[1])
    if command is None:
        return []
    if word.startswith("-"):
        return [*command.options, "--help"]
    if command.name == "completion":
        return SHELLS if len(before) == 2 else ()
    if not command.settings or before[-1].startswith("--"):
        return []  # a file, which the shell knows
    key, equals, _ = word.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(key)]
    return [*_names(command, before), *_next_parts(word)]


def _names(command: Command, before: list[str]) -> list[str]:
    return _recipes() if command.name == "recipe" and len(before) == 2 else []


def _next_parts(word: str) -> Iterable[str]:
    """Settings level by level, as folders are: `train.`, then `train.attack.`, then `...steps=`."""
    depth = word.count(".")
    for key in _settings():
        parts = key.split(".")
        head = ".".join(parts[: depth + 1])
        yield f"{head}=" if len(parts) == depth + 1 else f"{head}."


def _values(key: str) -> list[str]:
    if key in NAMES:
        return NAMES[key]()
    declared = _settings().get(key)
    if declared is None:
        return []
    if declared.type is bool:
        return ["true", "false"]
    if typing.get_origin(declared.type) is typing.Literal:
        return [str(choice) for choice in typing.get_args(declared.type)]
    return list(declared.metadata.get("choices", ()))


def _settings() -> dict[str, Field[Any]]:
    from components.config.base import settings_of
    from components.config.root import Config

    return {key: declared for key, declared, _ in settings_of(Config())}


def _recipes() -> list[str]:
    from components.config.recipes import recipe_names

    return recipe_names(ROOT / "recipes")


def _variants() -> list[str]:
    from components.config.recipes import read_variants

    return list(read_variants(ROOT / "recipes"))


# Settings whose values are names in files.
NAMES: dict[str, Callable[[], list[str]]] = {
    "recipe": _recipes,
    "variant": _variants,
    "register.variant": _variants,
    "evaluate.twin": _variants,
}

if __name__ == "__main__":
    sys.exit(ended_politely("amr completion", main))
