"""Frees a trial's workers the moment it is over: Ray does not.

A trial's training has a controller of its own, and that a placement group. When Tune ends a trial
its process dies, and so, a little later, do controller and workers; but the placement group stays
until the whole job ends (Ray 2.60: a group made by an actor goes when both actor and job are
gone), and keeps its CPUs and GPUs. A search with early stopping would soon stand still. So each
controller registers here, and whoever ends a trial calls `release`.

Imports nothing heavy: Ray's controllers and this actor's own process load this module.
"""

import logging
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group

GRACE = 10.0  # seconds a controller gets to end by itself, which frees all it has

log = logging.getLogger("tune")


class Leash:
    """An actor that knows controller and placement groups of each running trial."""

    def __init__(self) -> None:
        self.controllers: dict[str, list[Any]] = {}
        self.groups: dict[str, list[PlacementGroup]] = {}

    def hold(self, trial: str, controller: Any) -> None:
        """A controller has begun."""
        self.controllers.setdefault(trial, []).append(controller)

    def hold_group(self, trial: str, group: PlacementGroup) -> None:
        """It has workers."""
        self.groups.setdefault(trial, []).append(group)

    def release(self, trial: str) -> int:
        """End whatever the trial still has; the number of placement groups that went."""
        for controller in self.controllers.pop(trial, []):
            try:
                ray.get(controller.abort.remote(), timeout=GRACE)
            except RayActorError:
                continue  # gone, as it should be: `abort` ends the process
            except GetTimeoutError:
                log.warning("the controller of trial %s does not end; killing it", trial)
            ray.kill(controller)
        groups = self.groups.pop(trial, [])
        for group in groups:
            remove_placement_group(group)
        return len(groups)


class Hold(ControllerCallback, WorkerGroupCallback):
    """Registers a training run's controller and placement groups; runs inside the controller."""

    def __init__(self, leash: Any, trial: str) -> None:
        self.leash, self.trial = leash, trial

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called before the controller asks for workers."""
        me = ray.get_runtime_context().current_actor
        ray.get(self.leash.hold.remote(self.trial, me))

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called whenever a group of workers stands, after a restart again."""
        group = worker_group.get_worker_group_state().placement_group_handle.placement_group
        ray.get(self.leash.hold_group.remote(self.trial, group))


def new_leash() -> Any:
    """A leash on this node; it needs no CPU."""
    return ray.remote(Leash).options(num_cpus=0, max_concurrency=8).remote()
