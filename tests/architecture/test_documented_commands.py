"""Every command on README and the pages is run by a test, or says what it needs.

`tests/pipelines/test_whole_pipeline.py` runs those that nothing else runs.
"""

import pytest

from tests._support.documented import ELSEWHERE, ROOT, Command, commands, to_run


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_runs_elsewhere_does(command: str) -> None:
    path, _, name = ELSEWHERE[command].partition("::")
    assert f"def {name}" in (ROOT / "tests" / path).read_text()
    assert any(c.text.startswith(command) for c in commands()), "no page says this any more"


def test_modules_and_settings_are_there() -> None:
    """Also of the commands that need more than a test has."""
    from components.config.load import valid_keys

    own = {*valid_keys(), "data.custom.subjects", "recipe", "variant", "seed", "compare", "seeds"}
    looked = 0
    for command in commands():
        words = command.text.removeprefix("$ ").split()
        for module in [b for a, b in zip(words, words[1:], strict=False) if a == "-m"]:
            if module.startswith("pipelines."):
                assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), command
                looked += 1
        if "python -m pipelines." in command.text and not command.text.startswith("$ "):
            keys = {w.strip('"').partition("=")[0] for w in words if "=" in w and w[0] != "-"}
            assert keys <= own, command
    assert looked > 20


def test_the_reader_finds_commands_and_what_they_need() -> None:
    """So that an empty list cannot pass."""
    found = {(c.page, c.text): c.needs for c in commands()}
    assert found["README.md", "make demo"].startswith("ten minutes")
    assert found["docs/recipes.md", "dvc repro"] == "the recipe's data"
    assert found["docs/start.md", "dvc repro"] == ""
    assert sum(not needs for needs in found.values()) > 40
    assert Command("docs/start.md", "python -m pipelines.sample", "") in commands()
    assert {"dvc repro", "amr predict clips/ --model hub/amr"} <= {c.text for c in to_run()}
