"""Plain functions over many items on the nodes of a Ray that runs; components know none of it."""

import errno
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.address import masked
from components.progress_bar import Progress
from pipelines._stage import StageError

log = logging.getLogger("cluster")

Item = TypeVar("Item")
Out = TypeVar("Out")

LOST = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError, LocalRayletDiedError)
ANSWER_SECONDS = 120.0  # a node that is busy starts a process slowly
NOTICE = 300.0  # seconds; a task may take long, but nobody should wonder whether one still runs
NO_SPACE, STORE = "No space left on device", "AWS Error"  # Arrow may give no number


@dataclass(frozen=True)
class Cluster:
    """A Ray that runs: its CPUs, and whether this process started it."""

    cpus: int
    own: bool


def on_each_node(function: Callable[[Item], Out], item: Item) -> dict[str, Out]:
    """`function(item)` on every node that takes tasks, by the node's address.

    A node that is lost meanwhile, or does not answer in time, is left out.
    """
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(function).options(num_cpus=0, scheduling_strategy=there)
            asked[node["NodeManagerAddress"]] = task.remote(item)
    answers = {}
    for address, answer in asked.items():
        try:
            answers[address] = ray.get(answer, timeout=ANSWER_SECONDS)
        except (GetTimeoutError, RayError) as error:
            log.warning("node %s does not answer: %s", address, str(error).partition("\n")[0])
    return answers


def parallel(
    c: Cluster,
    function: Callable[[Item], Out],
    items: Sequence[Item],
    *,
    workers: int = 0,
    describe: str = "",
    gpus: float = 0.0,
    on_lost: Callable[[Item], Out] | None = None,
    arrived: Callable[[Out], Any] | None = None,
) -> Iterator[Any]:
    """`function` of each item, one CPU and `gpus` each; results in order of items, with progress.

    At most `workers` run at once (0 = one per CPU). A task whose worker or node dies is run again
    up to three times; after that `on_lost(item)` gives the result, or StageError names the item.
    An error that the function raises ends the run and is raised here. `arrived` takes each result
    as soon as it is there, in any order, and gives what is kept in its place.
    """
    limit = workers or c.cpus
    task = ray.remote(_clear(function)).options(num_cpus=1, num_gpus=gpus, max_retries=3)
    results: dict[int, Any] = {}
    running: dict[ray.ObjectRef, int] = {}
    following = iter(range(len(items)))
    yielded = 0
    with Progress(len(items), describe or "tasks", "task") as shown:
        try:
            while yielded < len(items):
                while len(running) < limit and (i := next(following, None)) is not None:
                    running[task.remote(items[i])] = i
                done, _ = ray.wait(list(running), num_returns=1, timeout=NOTICE)
                if not done:
                    log.warning(
                        "%s: no task has ended for %.0f s; %d run or wait for one of %d CPUs",
                        describe or "tasks",
                        NOTICE,
                        len(running),
                        c.cpus,
                    )
                for ref in done:
                    i = running.pop(ref)
                    result = _result(ref, items[i], on_lost)
                    results[i] = arrived(result) if arrived else result
                    shown.update()
                while yielded in results:
                    yield results.pop(yielded)
                    yielded += 1
        finally:
            for ref in running:
                ray.cancel(ref, force=True)


def to_nodes(value: Out) -> Callable[[], Out]:
    """A function that gives `value` on any node of the cluster; it travels to each at most once."""
    held = ray.put(value)
    return lambda: ray.get(held)


def _clear(function: Callable[[Item], Out]) -> Callable[[Item], Out]:
    """The function, with a full disk or a store that does not answer as errors a user can mend."""

    @functools.wraps(function)
    def run(item: Item) -> Out:
        try:
            return function(item)
        except OSError as error:
            node, text = ray.util.get_node_ip_address(), masked(str(error))
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or NO_SPACE in text:
                what, mend = f"no space left on node {node} ({text})", "free some and run"
            elif STORE in text:
                what, mend = f"the object store does not answer node {node} ({text})", "run"
            else:
                raise
        raise StageError(f"{what}; {mend} the same command again: what is finished is kept")

    return run


def _result(ref: ray.ObjectRef, item: Item, on_lost: Callable[[Item], Out] | None) -> Out:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error
    except LOST as error:
        if on_lost is None:
            raise StageError(f"the worker of {item!r:.200} died again and again: {error}")
        log.warning("a worker died again and again; looking for the clip that crashes it")
        return on_lost(item)
