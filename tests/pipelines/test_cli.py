"""`amr`: the list of commands, the way to each of them, completion in real shells, polite ends."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path

import pytest

from components.config import load_config
from components.config.base import settings_of
from pipelines import cli
from pipelines._commands import COMMANDS, Command
from pipelines._completion import candidates
from tests._support.cli import ROOT, amr, heeds_ctrl_c, in_terminal

HEAVY = ("torch", "ray", "mlflow", "numpy", "pyarrow")
# Modules that are no command: how commands start, and what a cluster runs.
NO_COMMAND = {"__init__", "__main__", "cli", "job"}


def test_help_lists_every_command_with_an_example() -> None:
    done = amr("--help")
    assert done.returncode == 0 and not done.stderr
    at = [done.stdout.index(f"\n  {name} ") for name in COMMANDS]
    assert at == sorted(at)
    for command in COMMANDS.values():
        assert command.does in done.stdout and command.example in done.stdout
        assert f"amr {command.name}" in command.example
    assert amr().stdout == done.stdout


def test_every_module_that_a_user_runs_is_a_command() -> None:
    modules = {path.stem for path in (ROOT / "pipelines").glob("*.py") if path.stem[0] != "_"}
    commands = {c.path.rpartition(".")[2] for c in COMMANDS.values()} - {"_completion"}
    assert modules - NO_COMMAND == commands, "list it in pipelines/_commands.py"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_options_that_complete_are_those_of_the_command(command: Command) -> None:
    source = (ROOT / (command.path.replace(".", "/") + ".py")).read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("--")
    ]
    if "run_stage(" in source and command.name != "report":  # which takes its own word off
        names.append("--params")
    known = ["--table"] if command.name == "report" else sorted(names)
    assert sorted(command.options) == known


def test_an_unknown_command_names_the_nearest() -> None:
    done = amr("evalute")
    assert done.returncode == 2 and not done.stdout
    assert "no command 'evalute'; did you mean 'evaluate'?" in done.stderr


@pytest.mark.parametrize("words", [["index.chek=full"], ["--help"], ["--nothing"]])
def test_a_stage_runs_as_its_module_does(words: list[str]) -> None:
    module = subprocess.run(
        [sys.executable, "-m", "pipelines.index", *words], cwd=ROOT, capture_output=True, text=True
    )
    done = amr("index", *words)
    assert (done.returncode, done.stdout, done.stderr) == (
        module.returncode, module.stdout, module.stderr,
    )  # fmt: skip
    assert "index.check" in done.stdout + done.stderr or words == ["--nothing"]


def test_a_stage_does_its_work(tmp_path: Path) -> None:
    # With worker processes, which look `__main__` up again.
    words = ["sample.clips_per_class=1", f"paths.data={tmp_path / 'data'}"]
    done = amr("sample", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "data" / "sample.json").read_text())["complete"]


def test_the_console_script_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["amr"].partition(":")
    main = getattr(import_module(module), name)
    assert main is cli.main
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == amr("--help").stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["nonsense"], ["completion", "--line", "amr train train."]]
)
def test_help_and_completion_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from pipelines.cli import main; main(sys.argv[1:]); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_commands_settings_and_values_complete() -> None:
    assert candidates("amr ") == sorted([*COMMANDS, "--help"])
    assert candidates("amr re") == [
        "recipe", "reference", "register", "relocate", "report", "reproduce", "results",
    ]  # fmt: skip
    assert "train." in candidates("amr train ") and "seed=" in candidates("amr train ")
    assert candidates("amr train train.epo") == ["train.epochs="]
    assert candidates("amr train x=1 train.attack.st") == ["train.attack.steps="]
    assert candidates("amr shard shard.codec=") == ["shard.codec=jpeg", "shard.codec=raw"]
    assert candidates("amr train train.rollback=") == [
        "train.rollback=false",
        "train.rollback=true",
    ]
    assert "variant=amr-mean" in candidates("amr train variant=amr-")
    assert {"ntu60", "ntu120"} <= set(candidates("amr recipe ntu"))
    assert candidates("amr predict --pic") == ["--picture"]
    assert candidates("amr completion ") == ["bash", "zsh"]
    assert candidates("amr nothing tra") == candidates("") == []


def test_every_declared_setting_completes() -> None:
    for key, _, _ in settings_of(load_config(ROOT / "params.yaml")):
        assert f"{key}=" in candidates(f"amr train {key}")


@pytest.fixture(scope="module")
def on_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with an `amr` that runs this working tree, whatever is installed."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "amr"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(amr completion bash)"\n'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -U compinit; compinit -u -D; eval "$(amr completion zsh)"\n',
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("amr evalu", "amr evaluate"),
        ("amr train train.epo", "amr train train.epochs="),
        ("amr train shard.codec=j", "amr train shard.codec=jpeg"),
        ("amr train paths.data=doc", "amr train paths.data=docs"),
        ("amr inspect pyproj", "amr inspect pyproject.toml"),
    ],
)
def test_a_shell_completes(shell: str, typed: str, becomes: str, on_path: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command, start = SHELLS[shell]
    # Tab, then to the line's start and end: what stands there is echoed.
    keys = f"{start}{typed}\t\x01echo BECAME: \x05:END\nexit\n"
    shown = in_terminal(command, keys, PATH=on_path, PS1="$ ", HISTFILE="")
    echoed = re.findall(r"BECAME: (amr[^\x1b\r\n]*):END", shown)
    assert {text.strip().removesuffix("/") for text in echoed} == {becomes}, shown


def test_colours_are_for_terminals_that_want_them() -> None:
    command = [sys.executable, "-m", "pipelines", "--help"]
    plain = amr("--help").stdout
    assert "\x1b" not in plain
    coloured = in_terminal(command, NO_COLOR="")
    assert "\x1b[1mFirst look\x1b[0m" in coloured
    for unwanted in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert in_terminal(command, **unwanted).replace("\r\n", "\n") == plain


class _Silent(BaseHTTPRequestHandler):
    """A server that takes a request and lets it wait."""

    asked = threading.Event()
    done = threading.Event()

    def do_GET(self) -> None:
        """Say that somebody waits, then wait for the test."""
        self.asked.set()
        self.done.wait(60)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that never answers."""
    server = HTTPServer(("127.0.0.1", 0), _Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    _Silent.done.set()
    server.shutdown()


def test_ctrl_c_ends_in_one_line(silent: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "doctor"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"MLFLOW_TRACKING_URI": silent}, preexec_fn=heeds_ctrl_c,
    )  # fmt: skip
    assert _Silent.asked.wait(120)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "amr doctor: stopped\n")


IN_A_FINALISER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["-m"]
import pipelines

class Library:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

Library()
for _ in range(600):
    time.sleep(0.1)
"""


def test_ctrl_c_is_not_lost_in_a_finaliser() -> None:
    """As Python would: "Exception ignored in", and the command goes on."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FINALISER], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "stopped\n")


def test_a_reader_that_goes_away_is_no_fault() -> None:
    words = f"{sys.executable} -m pipelines --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: amr") and done.stderr == ""


def test_names_in_another_encoding_are_spelt_out_on_both_streams() -> None:
    """Python's own standard output ends with an exception at bytes that are no UTF-8."""
    code = (
        "import os, sys; from pipelines._terminal import spell_out_odd_names as now; now(); "
        "name = os.fsdecode(b'S\\xb9\\xc7.avi'); print(name, 'é'); print(name, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(rb"S\xb9\xc7.avi") and rb"S\xb9\xc7.avi" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "inspect", b"./S\xb9\xc7.avi"],
        cwd=ROOT,
        capture_output=True,
    )
    assert done.returncode == 2 and rb"S\xb9\xc7.avi: no such file" in done.stderr
