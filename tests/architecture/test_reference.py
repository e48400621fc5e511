"""The pages docs/settings.md and docs/api.md say what the code says."""

import re

from components.attacks import ATTACKS
from components.config import Config
from components.config.base import settings_of
from pipelines.reference import API, PUBLIC, SETTINGS, api_page, settings_page, signature

MEND = "run `python -m pipelines.reference`"


def test_pages_are_those_of_the_code() -> None:
    assert SETTINGS.read_text() == settings_page(), MEND
    assert API.read_text() == api_page(), MEND


def test_every_setting_has_its_row_and_every_public_name_its_entry() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| [^|]+ \| [^|]+ \|", SETTINGS.read_text(), re.M)
    assert sorted(rows) == sorted(key for key, *_ in settings_of(Config()))
    names = [name for _, public in PUBLIC.values() for name in public]
    assert re.findall(r"^### (\w+)$", API.read_text(), re.M) == [*names, *ATTACKS]


def test_pages_are_the_same_in_every_process() -> None:
    assert " at 0x" not in API.read_text()


def test_attacks_with_fixed_parameters_are_described_by_their_function() -> None:
    text = API.read_text()
    assert "new function with partial application" not in text
    assert "keep: Literal['last', 'best'] = 'best'" in text and "Adversarial clips after" in text


def test_a_signature_is_written_as_one_calls_it() -> None:
    def attack(model: int, *, steps: int = 3, name: str | None = None) -> list[int]:
        return [model, steps]

    assert signature("attack", attack) == (
        "attack(model: int, *, steps: int = 3, name: str | None = None) -> list[int]"
    )
