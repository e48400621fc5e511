"""For all tests: no touch of the project's own MLflow store, and an S3 server where one asks."""

import json
import os
import uuid
from collections.abc import Callable, Iterator

import pytest

# The files that take longest come first: handed out last, one of them would keep one worker busy
# for minutes after the other has nothing left to do (`--no-loadscope-reorder`, see the Makefile).
LONGEST = (
    "test_ray_training",
    "test_whole_pipeline",
    "test_search_on_ray",
    "test_runtimes",
    "test_evaluate_stage",
    "test_search_nodes",
    "test_server_faults",
    "test_shards_killed",
    "test_dvc",
    "test_contracts",
    "test_ingest_stages",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


# Whatever is not here everywhere is imported where it is used: the models' tests also run on GPU
# machines that have PyTorch and numpy alone.


@pytest.fixture(scope="session", autouse=True)
def _store_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if "MLFLOW_TRACKING_URI" in os.environ:
        yield
        return
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    yield
    del os.environ["MLFLOW_TRACKING_URI"]


@pytest.fixture(scope="session")
def _s3() -> Iterator[str]:
    """The query that leads to an S3 server on loopback."""
    from moto.server import ThreadedMotoServer  # takes seconds to import

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


@pytest.fixture
def bucket(_s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`bucket.format(folder)` is the URI of a folder in a new bucket of a real S3 server."""
    from pyarrow import fs

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    name = f"b{uuid.uuid4().hex[:12]}"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://{name}?{_s3}&allow_bucket_creation=true")
    filesystem.create_dir(name)
    return f"s3://{name}/{{}}?{_s3}"


@pytest.fixture
def files_in() -> Callable[[str], list[str]]:
    """The paths of all files under a folder or URI."""
    from pyarrow import fs

    from components.shards.storage import open_store

    def paths(where: str) -> list[str]:
        store = open_store(where)
        selector = fs.FileSelector(store.root, recursive=True, allow_not_found=True)
        infos = store.filesystem.get_file_info(selector)
        return [info.path for info in infos if info.type == fs.FileType.File]

    return paths


@pytest.fixture
def pinned(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Hold figures to those in `pinned.json` beside the test: what changes them changes every run.

    After a change that is meant, PIN_FIGURES=1 in the environment writes them anew.
    """
    path = request.path.with_name("pinned.json")

    def hold(name: str, figures: dict[str, float], rel: float = 2e-3) -> None:
        known = json.loads(path.read_text()) if path.is_file() else {}
        if os.environ.get("PIN_FIGURES"):
            known[name] = {key: float(f"{value:.6g}") for key, value in figures.items()}
            path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        scale = max(abs(value) for value in known[name].values())
        assert figures == pytest.approx(known[name], rel=rel, abs=rel * min(1.0, scale))

    return hold
