"""Frees a trial's workers the moment it is over: Ray does not.

A trial's training has a controller of its own, and that a placement group. When Tune ends a trial
its process dies, and so, a little later, do controller and workers; but the placement group stays
until the whole job ends (Ray 2.60: a group made by an actor goes when both actor and job are
gone), and keeps its CPUs and GPUs. A search with early stopping would soon stand still. So each
controller registers here before it asks for workers, and whoever ends a trial calls `release`.

Imports nothing heavy: Ray's controllers and this actor's own process load this module.
"""

import logging
from typing import Any

import ray
from ray._private.state import state as cluster_state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

GRACE = 10.0  # seconds a controller gets to end by itself, which frees all it has

log = logging.getLogger("tune")


class Leash:
    """An actor that knows the controllers of each running trial."""

    def __init__(self) -> None:
        self.controllers: dict[str, dict[str, Any]] = {}

    def hold(self, trial: str, actor_id: str, controller: Any) -> None:
        """A controller has begun."""
        self.controllers.setdefault(trial, {})[actor_id] = controller

    def release(self, trial: str) -> int:
        """End whatever the trial still has; the number of placement groups that Ray had left."""
        controllers = self.controllers.pop(trial, {})
        for controller in controllers.values():
            try:
                ray.get(controller.abort.remote(), timeout=GRACE)
            except RayActorError:
                continue  # gone, as it should be: `abort` ends the process
            except GetTimeoutError:
                log.warning("the controller of trial %s does not end; killing it", trial)
            ray.kill(controller)
        left = groups_of(set(controllers))
        for group in left:
            remove_placement_group(group)
        return len(left)


def groups_of(actor_ids: set[str]) -> list[PlacementGroup]:
    """The placement groups that these actors made and that still hold resources.

    Ray's public table does not tell who made a group; the record behind it does.
    """
    found = []
    for record in cluster_state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(record)
        if group.state != PlacementGroupTableData.REMOVED:
            if group.creator_actor_id.hex() in actor_ids:
                found.append(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return found


class Hold(ControllerCallback):
    """Registers a training run's controller; runs inside it."""

    def __init__(self, leash: Any, trial: str) -> None:
        self.leash, self.trial = leash, trial

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called before the controller asks for workers."""
        me = ray.get_runtime_context()
        ray.get(self.leash.hold.remote(self.trial, me.get_actor_id(), me.current_actor))


def new_leash() -> Any:
    """A leash on this node, which outlives all others of the cluster; it needs no CPU."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 8, "scheduling_strategy": here}
    return ray.remote(Leash).options(**options).remote()
