"""Ray's torch trainer without the helpers that a run of this project has no use for.

Every actor of Ray wakes a hundred times a second. Where each core trains, each waking interrupts a
worker, for which all others then wait; `python -m benchmarks train_scaling` measures what is left.
"""

from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.torch.torch_trainer import TorchTrainer

# The first starts an actor for Ray's own data sets; ours come from shards. The second's actor asks
# the dashboard, which a local Ray does not start, once a second, and complains each time: the train
# stage's Ray ends with the stage, and the search has `_leash.py` for its trials.
WITHOUT = (DatasetsCallback, PlacementGroupCleanerCallback)


class _Fixed(FixedScalingPolicy):
    """A fixed number of workers on nodes that nobody adds to: no actor that asks for more nodes."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask for nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""


class Trainer(TorchTrainer):
    """`local`: on a Ray that this project started, which is one machine and has no autoscaler."""

    def __init__(self, *args: Any, local: bool, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.local = local

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, WITHOUT)]

    def _initialize_and_run_controller(self, **init: Any) -> Any:
        if self.local and type(init["scaling_policy"]) is FixedScalingPolicy:
            init["scaling_policy"] = _Fixed(init["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**init)
