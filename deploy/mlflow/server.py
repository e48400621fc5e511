"""One command for a tracking server: PostgreSQL, an S3 store and `mlflow server`, on this machine.

    python deploy/mlflow/server.py --folder /srv/mlflow            # Ctrl-C stops all three
    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000               # all that a client needs

PostgreSQL comes from the system's packages (Debian: apt-get install postgresql). The S3 store is
the one at --s3 (credentials from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or MinIO when its
program is installed, or, to try things out, moto, which forgets its objects when it ends. Clients
send artifacts through the MLflow server, so they need no credentials. Everything listens on
loopback, MLflow on --host where that is given; docs/mlflow.md has a proxy for a team.
"""

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
BUCKET = "mlflow"
TRY_OUT = {"AWS_ACCESS_KEY_ID": "tryout", "AWS_SECRET_ACCESS_KEY": "tryout-secret"}


class MissingProgram(RuntimeError):
    """A program is not installed; the message says how to get it."""


@dataclass
class Service:
    """One server process with its address and its log file."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process and its children, and wait for it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(timeout=20)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def postgres_program(name: str) -> str:
    """Path of a PostgreSQL program; Debian keeps them off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = shutil.which(name) or (str(places[0]) if places else None)
    if found is None:
        raise MissingProgram(f"{name} is not installed; run: apt-get install postgresql")
    return found


def start_postgres(folder: Path, port: int = 0) -> Service:
    """PostgreSQL with a database `mlflow` in `folder` (made on first use)."""
    port = port or free_port()
    # PostgreSQL refuses to run as root; its package brings a user of its own.
    user = "postgres" if os.geteuid() == 0 else None
    data = folder / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    if not (data / "PG_VERSION").is_file():
        data.mkdir()
        if user:
            os.chown(data, pwd.getpwnam(user).pw_uid, -1)
        words = [postgres_program("initdb"), "-D", str(data), "-U", "mlflow", "-A", "trust"]
        subprocess.run(
            [*words, "-E", "UTF8", "--locale=C.UTF-8"],
            user=user, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
    words = [postgres_program("postgres"), "-D", str(data), "-p", str(port), "-k", "", "-h", HOST]
    service = _start(
        "postgres", words, f"postgresql+psycopg2://mlflow@{HOST}:{port}/mlflow", folder, user
    )
    _create_database(service, port)
    return service


def _create_database(service: Service, port: int) -> None:
    import psycopg2

    deadline = time.monotonic() + 30
    while True:
        try:
            link = psycopg2.connect(host=HOST, port=port, user="mlflow", dbname="postgres")
            break
        except psycopg2.OperationalError:
            _check(service, deadline)
    link.autocommit = True
    with link.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'mlflow'")
        if cursor.fetchone() is None:
            cursor.execute("CREATE DATABASE mlflow")
    link.close()


def start_s3(folder: Path, port: int = 0) -> Service:
    """MinIO on `folder` when it is installed, else moto, which keeps objects in memory only."""
    port = port or free_port()
    url = f"http://{HOST}:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    minio = shutil.which("minio")
    if minio:
        words = [minio, "server", str(folder / "s3"), "--address", f"{HOST}:{port}", "--quiet"]
    else:
        words = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    secrets = {
        "MINIO_ROOT_USER": TRY_OUT["AWS_ACCESS_KEY_ID"],
        "MINIO_ROOT_PASSWORD": TRY_OUT["AWS_SECRET_ACCESS_KEY"],
    }
    service = _start("s3", words, url, folder, variables=secrets)
    _await_port(service, port)
    return service


def shared_folder(name: str) -> str:
    """A new folder that PostgreSQL's own user may enter too."""
    folder = tempfile.mkdtemp(prefix=f"{name}-")
    os.chmod(folder, 0o755)
    return folder


def make_bucket(url: str, variables: Mapping[str, str]) -> None:
    """Create the bucket when it is not there yet."""
    import boto3

    s3 = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)


def start_mlflow(
    folder: Path, database: str, s3: str, variables: Mapping[str, str], port: int = 0,
    workers: int = 1, host: str = HOST,
) -> Service:  # fmt: skip
    """`mlflow server` on that database and S3 store; clients need its address alone."""
    port = port or free_port()
    words = [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)),
        *("--backend-store-uri", database, "--workers", str(workers)),
        *("--artifacts-destination", f"s3://{BUCKET}/artifacts"),
    ]
    settings = {
        "MLFLOW_S3_ENDPOINT_URL": s3,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **variables,
    }
    service = _start("mlflow", words, f"http://{host}:{port}", folder, variables=settings)
    deadline = time.monotonic() + 120
    while not _healthy(service.url):
        _check(service, deadline)
    return service


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _start(
    name: str, words: Sequence[str], url: str, folder: Path, user: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Service:  # fmt: skip
    log = folder / f"{name}.log"
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with log.open("ab") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=file, stdin=subprocess.DEVNULL, user=user, cwd="/",
            env=environment | dict(variables or {}), start_new_session=True,
        )  # fmt: skip
    return Service(name, url, process, log)


def _await_port(service: Service, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            _check(service, deadline)


def _check(service: Service, deadline: float) -> None:
    """Wait a moment; an error when the service has ended or takes too long."""
    if service.process.poll() is not None or time.monotonic() > deadline:
        tail = "\n".join(service.log.read_text(errors="replace").splitlines()[-15:])
        service.stop()
        raise RuntimeError(f"{service.name} did not start; end of {service.log}:\n{tail}")
    time.sleep(0.1)


def main() -> int:
    """Start all three, print the address, wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="database, objects and logs")
    parser.add_argument("--host", default=HOST, help="where MLflow listens, for nodes elsewhere")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--s3", default="", help="address of an S3 store; empty = start one")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    folder = args.folder.absolute()
    variables = (
        {k: v for k, v in os.environ.items() if k.startswith("AWS_")} if args.s3 else TRY_OUT
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with ExitStack() as running:
            database = running.enter_context(start_postgres(folder))
            s3 = args.s3
            if not s3:
                s3 = running.enter_context(start_s3(folder)).url
                if not shutil.which("minio"):
                    print("no MinIO here: the S3 store is moto, it forgets its objects at the end")
            make_bucket(s3, variables)
            server = running.enter_context(
                start_mlflow(
                    folder, database.url, s3, variables, args.port, args.workers, args.host
                )
            )
            print(f"ready: export MLFLOW_TRACKING_URI={server.url}", flush=True)
            server.process.wait()
    except MissingProgram as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
