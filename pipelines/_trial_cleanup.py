"""Frees a trial's workers the moment it is over, because Ray does not (ray-project/ray#54305).

A trial's training has a controller of its own, and that a placement group. When Tune ends a trial
its process dies, and so, a little later, do controller and workers; but the placement group stays
until the whole job ends (a group made by an actor goes when both actor and job are gone), and keeps
its CPUs and GPUs. Ray's own PlacementGroupCleaner does not suffice: it needs the dashboard, and
knows a group only once its workers have started, 5 to 8 s after it was made (two cores). A trial
whose process is lost in between would block a cluster that holds one trial for ever.

So each controller registers here before it asks for workers, and `release` ends it and its groups.
Uses private names of Ray (2.60); there is no public one for who made a group, or
for the start of a controller.
"""

import logging
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

TESTED = "2.60."
if not ray.__version__.startswith(TESTED):
    raise ImportError(
        f"{__name__} uses private names of Ray {TESTED}x; this is Ray {ray.__version__}. Install "
        "the version in constraints.txt; to change it, see whether ray-project/ray#54305 is fixed "
        "(then this file can go), or run tests/search/test_stopped_trials.py with the new version"
    )

from ray._private.state import state as cluster_state  # noqa: E402
from ray.core.generated.gcs_pb2 import (  # type: ignore[attr-defined] # noqa: E402
    PlacementGroupTableData,
)
from ray.train.v2._internal.execution.callback import ControllerCallback  # noqa: E402

GRACE = 10.0  # seconds a controller gets to end by itself, which frees all it has

log = logging.getLogger("tune")


class TrialCleanup:
    """An actor that knows the controllers of each running trial."""

    def __init__(self) -> None:
        self.controllers: dict[str, dict[str, Any]] = {}

    def register(self, trial: str, actor_id: str, controller: Any) -> None:
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

    Ray's public table does not say who made a group; the record behind it does.
    """
    groups = []
    for record in cluster_state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(record)
        if group.state != PlacementGroupTableData.REMOVED:
            if group.creator_actor_id.hex() in actor_ids:
                groups.append(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return groups


class RegisterController(ControllerCallback):
    """Registers a training run's controller; runs inside it."""

    def __init__(self, cleanup: Any, trial: str) -> None:
        self.cleanup, self.trial = cleanup, trial

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called before the controller asks for workers."""
        me = ray.get_runtime_context()
        ray.get(self.cleanup.register.remote(self.trial, me.get_actor_id(), me.current_actor))


def new_cleanup() -> Any:
    """A `TrialCleanup` on this node, which outlives all others of the cluster; needs no CPU."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 8, "scheduling_strategy": here}
    return ray.remote(TrialCleanup).options(**options).remote()
