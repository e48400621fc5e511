"""What the driver hears of a running training: a small actor that collects messages, and a thread.

Imports nothing heavy: Ray's controller and the channel's own process load this module.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.train import Checkpoint, UserCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger("progress")

Event = dict[str, Any]
POLL = 0.3  # seconds
ANSWER_SECONDS = 600.0  # for the channel on a machine that is busy; it has next to nothing to do


class ProgressChannel:
    """Messages on their way to the driver, in order; of several step messages only the last."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        """Add a message: `kind` is "step", "epoch" or "lost"."""
        if event["kind"] == "step" and self.events and self.events[-1]["kind"] == "step":
            self.events.pop()
        self.events.append(event)

    def take(self) -> list[Event]:
        """All messages since the last call."""
        taken, self.events = self.events, []
        return taken


class ProgressCallback(UserCallback):
    """Passes on, from Ray's controller, each finished epoch and each lost worker.

    Runs on the driver's node, outlives worker failures, and sees a row only when its checkpoint
    is stored.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def after_report(
        self, run_context: Any, metrics: list[Event], checkpoint: Checkpoint | None
    ) -> None:
        """Called once all workers have reported an epoch."""
        row = metrics[0]
        # Waits, so that the last row is there when the driver looks for the last time.
        ray.wait([self.channel.put.remote({"kind": "epoch", **row})], timeout=5.0)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called when workers have failed, before Ray decides on a retry."""
        reasons = {rank: str(error) or repr(error) for rank, error in worker_exceptions.items()}
        self.channel.put.remote({"kind": "lost", "workers": reasons})


@contextlib.contextmanager
def progress_channel(handle: Callable[[Event], None]) -> Iterator[Any]:
    """A channel whose messages go to `handle`, in order, in a thread; drained at the end."""
    # Beside the driver: on another node it would be lost with that node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    channel: Any = ray.remote(ProgressChannel).options(**options).remote()
    stop = threading.Event()
    failure: list[BaseException] = []

    def pump() -> None:
        while True:
            last = stop.is_set()
            try:
                for event in ray.get(channel.take.remote(), timeout=ANSWER_SECONDS):
                    handle(event)
            except ray.exceptions.RayError as error:
                # Training does not hang on being watched.
                log.warning("no more progress to show: %s", str(error).partition("\n")[0])
                return
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)
                return
            if last:
                return
            stop.wait(POLL)

    thread = threading.Thread(target=pump, name="progress", daemon=True)
    thread.start()
    try:
        yield channel
    finally:
        stop.set()
        thread.join()
        ray.kill(channel)
    if failure:
        raise failure[0]
