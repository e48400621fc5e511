"""A token of this machine is used by all processes of a Ray or by none, in any order of imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("imports", "mode"),
    [("import pipelines, ray", "token"), ("import ray, pipelines", "unset")],
)
def test_the_token_is_asked_for_before_ray_reads_its_settings_or_not_at_all(
    tmp_path: Path, imports: str, mode: str
) -> None:
    """Set too late, Ray wants a token that the process which starts it never sends."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    code = f"{imports}, os; print(os.environ.get('RAY_AUTH_MODE', 'unset'))"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    env = {**clean, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [mode]


def test_a_local_ray_says_nothing_of_the_token_that_it_makes(tmp_path: Path) -> None:
    code = (
        "from components.config.train import RaySection\n"
        "from pipelines._cluster import cluster\n"
        "from pipelines._stage import setup_logging\n"
        "setup_logging()\n"
        "with cluster(RaySection()): pass"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env = {**clean, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "" and "oken" not in done.stderr
    assert (tmp_path / ".ray" / "auth_token").is_file(), "then this test looks at nothing"
