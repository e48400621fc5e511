"""What every stage shares: settings, absolute paths, logging, and errors a user can act on."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import components
from components.address import local_path, parse_address, probe
from components.config import Config, load_config, to_dict
from components.config.base import settings_of
from components.config.load import nearest, read_yaml
from components.config.recipes import meaning
from components.errors import UserError
from components.files import try_lock
from mlflow_tracking.moved import check_not_moved
from mlflow_tracking.store import tracking_uri
from pipelines._terminal import interrupted, spell_out_odd_names

ROOT = Path(__file__).resolve().parent.parent
# What the same command does with the work of a stage that was stopped.
GOES_ON = {
    "shard": "keeps the shards that are finished and writes the rest",
    "tune": "goes on with the trials of this search",
    "train": "goes on from the last finished epoch",
    "evaluate": "keeps the tasks that are finished and does the rest",
    "demo": "keeps the stages that are finished and goes on",
    "sync": "sends what is missing",
}
ONE_AT_A_TIME = ("index", "shard", "train", "evaluate")  # tune has a lock of its own
LOGGING = ("tune", "train", "evaluate", "register", "report", "sync")


class StageError(UserError):
    """Something the user can mend: the message says what, where and what to do."""


@dataclass(frozen=True)
class Stage:
    """One running stage: its settings and its folders, all absolute."""

    name: str
    config: Config
    overrides: tuple[str, ...] = ()
    params: Path = ROOT / "params.yaml"

    @property
    def data(self) -> Path:
        """The raw data folder."""
        return absolute(self.config.paths.data)

    @property
    def raw(self) -> str:
        """Folder or URI that raw files are read from."""
        return self.config.paths.data_uri or str(self.data)

    @property
    def artifacts(self) -> Path:
        """The folder of all results."""
        return absolute(self.config.paths.artifacts)

    @property
    def shards(self) -> str:
        """Folder or URI of the shards."""
        given = self.config.shard.uri
        if "://" in given:
            return given
        return str(absolute(given)) if given else str(self.artifacts / "shards")

    def tuned(self) -> "Stage":
        """This stage with what the search found, beneath the variant and the command line."""
        best = self.artifacts / "tune" / "best.yaml"
        if not best.is_file():
            return self
        config = load_config(self.params, self.overrides, tuned=read_yaml(best))
        return replace(self, config=config)

    def require(self, path: Path, maker: str) -> Path:
        """`path`, which stage `maker` writes; StageError when it is not there."""
        if not path.exists():
            raise StageError(f"{path} is missing; run `python -m pipelines.{maker}` first")
        return path


def absolute(path: str) -> Path:
    """A local path made absolute from the project's root, never from the working folder.

    Ray's workers and Tune's trials run in other folders, so a relative path must not survive.
    A link is kept as it is: `data` may be one.
    """
    return local_path(path, ROOT)


def run_stage(
    name: str,
    main: Callable[[Stage], None],
    argv: list[str] | None = None,
) -> int:
    """Parse the command line, load the settings, run `main`; the exit status.

    A UserError is the user's to mend: it prints one line and gives status 2. Ctrl-C is no fault: it
    says how to go on, with status 130. Anything else is a fault of the program and keeps its
    traceback.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{name}",
        description=(main.__doc__ or "").strip().splitlines()[0] if main.__doc__ else None,
        epilog="settings:\n" + settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.epochs=2")
    parser.add_argument("--params", default=str(ROOT / "params.yaml"), help="settings file")
    args = parser.parse_intermixed_args(argv)
    setup_logging()
    spell_out_odd_names()
    try:
        _check_packages()
        config = load_config(args.params, args.overrides)
        check_names(config)
        stage = Stage(name, config, tuple(args.overrides), Path(args.params).absolute())
        check_addresses(stage)  # what is unusable is named before anything long begins
        with only_one(stage):
            main(stage)
    except KeyboardInterrupt:
        return interrupted(name, f"the same command {GOES_ON.get(name, 'begins it again')}")
    except UserError as error:
        logging.getLogger(name).debug("details", exc_info=True)
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


def check_addresses(stage: Stage) -> None:
    """UserError for an address that cannot be read, or where this stage could not write."""
    config = stage.config
    if stage.name in LOGGING:
        store = parse_address(tracking_uri(config.tracking), "tracking")
        if store.local is not None:  # a server that is away is waited for, or published to later
            if reason := probe(store):
                raise StageError(f"the tracking store {store.masked}: {reason}")
            check_not_moved(store.local)
    writes = {"paths.artifacts": (config.paths.artifacts, "folder")}
    if stage.name == "sample":
        writes = {"paths.data": (config.paths.data, "folder")}
    if config.paths.data_uri and stage.name in ("index", "shard"):
        writes["paths.data_uri"] = (config.paths.data_uri, "storage")
    if config.shard.uri and stage.name in ("shard", "tune", "train", "evaluate"):
        writes["shard.uri"] = (config.shard.uri, "storage")
    if config.ray.storage and stage.name in ("tune", "train"):
        writes["ray.storage"] = (config.ray.storage, "storage")
    for key, (text, kind) in writes.items():
        address = parse_address(text, kind, ROOT)
        if reason := probe(address):
            raise StageError(f"{key}={address.masked}: {reason}")


@contextlib.contextmanager
def only_one(stage: Stage) -> Iterator[None]:
    """A lock, so that the same command started twice does not write the same files twice.

    StageError in the second. Train and evaluate may run side by side for other variants and seeds.
    """
    run = f"-{stage.config.run}" if stage.name in ("train", "evaluate") else ""
    if stage.name in ONE_AT_A_TIME:
        path = stage.artifacts / ".locks" / f"{stage.name}{run}.lock"
        lock = try_lock(path)
        if lock is None:
            raise StageError(
                f"another process is at `python -m pipelines.{stage.name}` for these artifacts "
                f"already ({path} is held); wait for it, or set paths.artifacts elsewhere"
            )
        try:
            yield
        finally:
            lock.release()
    else:
        yield


def setup_logging(level: int = logging.INFO) -> None:
    """Plain lines on standard error; a bar draws over them on a terminal."""
    logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    for noisy in ("ray", "botocore", "alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def check_names(config: Config) -> None:
    """UserError for the name of a fusion, backbone, method or suite that does not exist.

    Names that are the defaults need no look: finding out imports torch, which takes seconds.
    """
    default = Config()
    method = config.train.method
    if (config.model, method) != (default.model, default.train.method):
        from components.models.build import check_names as check_model
        from components.training.methods import METHODS

        check_model(to_dict(config.model))
        if method not in METHODS:
            raise UserError(f"no training method {method!r}{nearest(method, METHODS)}")
    suite = config.evaluate.suite
    if suite != default.evaluate.suite:
        from components.evaluation.suite import SUITES

        if suite not in SUITES:
            raise UserError(f"no suite {suite!r}{nearest(suite, SUITES)}")


def settings_help() -> str:
    """Every setting with its default and meaning, a line each."""
    rows = [(key, value, meaning(f)) for key, f, value in settings_of(Config())]
    return "\n".join(f"  {key}={str(value):<12.40} {words}" for key, value, words in rows)


def _check_packages() -> None:
    found = Path(components.__file__).resolve()
    if ROOT not in found.parents:
        raise StageError(
            f"another package named 'components' shadows this project's ({found}); run from {ROOT}"
        )
