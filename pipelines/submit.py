"""Send the project to a running Ray cluster as a job that runs `dvc repro`; follow it to its end.

`make submit RAY_ADDRESS=http://head:8265 [WORKSPACE=/shared/amr]`. The workspace is a folder that
every node of the cluster sees: it keeps data, artifacts and DVC's state from one job to the next,
so that submitting again goes on where the last job stopped. Without one, the project's own folder
is used, which is right when the cluster runs on this machine or mounts this folder.
"""

import argparse
import logging
import os
import shlex
import sys
import time
from pathlib import Path

import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from components.address import Address, local_path, masked, parse_address
from components.errors import UserError
from components.timeouts import OutOfTime, in_time
from mlflow_tracking.lineage import COMMIT
from pipelines._follow import follow
from pipelines._package import Package, package
from pipelines._stage import ROOT, StageError

ANSWER_SECONDS = 10.0  # for the job server's first answer
UPLOAD_SECONDS = 600.0  # to send the project, a few megabytes; Ray's client would wait for ever
AGENT_SECONDS = 180.0  # for a cluster that has just started to get its job agent
TRACKING = "MLFLOW_TRACKING_URI"


def main(argv: list[str] | None = None) -> int:
    """Submit, stream the log, and return the job's exit status (3 when it was stopped)."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.submit", description=__doc__)
    parser.add_argument("address", help="the cluster's dashboard, e.g. http://127.0.0.1:8265")
    parser.add_argument("--workspace", default=str(ROOT), help="folder that every node sees")
    parser.add_argument("targets", nargs="*", help="DVC stages; all when none is named")
    args = parser.parse_intermixed_args(argv)
    try:
        return _run(parse_address(args.address, "jobs"), args.workspace, args.targets)
    except UserError as error:
        print(f"submit: {error}", file=sys.stderr)
        return 2


def _run(address: Address, workspace: str, targets: list[str]) -> int:
    # Of a folder that is typed into a shell, people expect the shell's folder to count.
    folder = str(local_path(workspace, Path.cwd()).resolve())
    _check_server(address)
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    client = JobSubmissionClient(address.uri, headers=token_header())
    entrypoint = in_rays_python(["-m", "pipelines.job", folder, *targets])
    with package(ROOT, Path(folder)) as sent:
        for line in (*sent.describe(), *warnings_of(sent.commit)):
            print(line, flush=True)
        job = _submit(client, entrypoint, sent, address)
    print(f"job {job} on {address.masked}; workspace {folder}", flush=True)
    try:
        info = follow(client, address, job, token_header(), _say)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; stop it: ray job stop {job} --address {address.masked}")
        return 130
    return _status(job, info)


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _check_server(address: Address) -> None:
    """StageError unless a cluster's job server answers, and takes this machine's token."""
    url = f"{address.uri.rstrip('/')}/api/version"
    try:
        answer = requests.get(url, headers=token_header(), timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise StageError(
            f"no Ray cluster answers at {address.masked} ({masked(str(error))}); start one with "
            "`ray start --head`, or give RAY_ADDRESS=http://HOST:8265"
        ) from error
    if answer.status_code in (401, 403):
        raise StageError(
            f"the cluster at {address.masked} asks for its token; put the head's "
            "~/.ray/auth_token into RAY_AUTH_TOKEN, or name its file in RAY_AUTH_TOKEN_PATH"
        )
    if answer.status_code != 200 or "ray_version" not in answer.text:
        raise StageError(
            f"what answers at {address.masked} is no Ray dashboard (status {answer.status_code}); "
            "give RAY_ADDRESS=http://HOST:8265"
        )


def in_rays_python(words: list[str]) -> str:
    """A shell command that runs `python WORDS` with the interpreter that Ray itself runs in.

    A job's shell has the PATH of whoever started the node: with `.venv/bin/ray start` and nothing
    activated, `python` is the system's or none. The raylet, from which every job descends, names
    the interpreter that it starts workers with; its number in the environment Ray takes away.
    """
    raylets = "s/^--python_worker_command=\\([^ ]*\\).*/\\1/p"
    parents = "s/^PPid:[^0-9]*//p"
    return (
        "pid=$PPID; interpreter=; "
        'while [ -z "$interpreter" ] && [ "${pid:-0}" -gt 0 ]; do '
        f'interpreter=$(tr "\\0" "\\n" <"/proc/$pid/cmdline" 2>/dev/null | sed -n \'{raylets}\'); '
        f"pid=$(sed -n '{parents}' \"/proc/$pid/status\" 2>/dev/null); done; "
        f'exec "${{interpreter:-python}}" {shlex.join(words)}'
    )


def environment(commit: str) -> dict[str, str]:
    """What travels with a job: the commit, and the tracking server unless its address is secret.

    The dashboard shows a job's environment to everybody who may open it.
    """
    uri = os.environ.get(TRACKING, "").strip()
    shared = uri and not uri.startswith("sqlite") and masked(uri) == uri
    return {COMMIT: commit} | ({TRACKING: uri} if shared else {})


def warnings_of(commit: str) -> list[str]:
    """What the user should know before the job starts."""
    lines = []
    if not commit:
        lines.append("no git commit here, so the job's runs and models will name none")
    uri = os.environ.get(TRACKING, "").strip()
    if uri and TRACKING not in environment(commit):
        why = "a file of this machine" if uri.startswith("sqlite") else "it holds a password"
        lines.append(
            f"{TRACKING} stays here ({why}); the job logs to tracking.uri of params.yaml, to the "
            "variable as the nodes have it, or to mlflow.db in the workspace"
        )
    elif uri and parse_address(uri, "tracking").host in ("127.0.0.1", "localhost", "::1"):
        lines.append(
            f"{TRACKING}={uri} travels along; on the cluster's head it means the head itself, so "
            "the server must be there too"
        )
    return lines


def _submit(client: JobSubmissionClient, entrypoint: str, sent: Package, address: Address) -> str:
    """The job's id. A cluster that has just started has no agent for some seconds: wait for it."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return in_time(
                UPLOAD_SECONDS,
                lambda: client.submit_job(
                    entrypoint=entrypoint,
                    runtime_env={
                        "working_dir": str(sent.folder),
                        "env_vars": environment(sent.commit),
                    },
                    metadata={"project": "amr-robust-pipeline"},
                ),
            )
        except OutOfTime as error:
            raise StageError(
                f"{address.masked} took longer than {UPLOAD_SECONDS:g} s to take the project; "
                f"`ray job list --address {address.masked}` shows whether the job came through"
            ) from error
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise StageError(f"{address.masked} refused the job: {error}") from error
            print("the cluster is starting; waiting for its job agent", flush=True)
            time.sleep(2)


def token_header() -> dict[str, str]:
    """The cluster's token as Ray looks for it itself; `ray start` asks for it where one exists."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _status(job: str, info: JobDetails) -> int:
    print(f"job {job}: {info.status.value}" + (f": {info.message}" if info.message else ""))
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return 3
    return info.driver_exit_code or 1


if __name__ == "__main__":
    sys.exit(main())
