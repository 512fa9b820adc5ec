"""The bound on the blocks that wait for the processes of a stage."""

from typing import Any

from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES, BackpressurePolicy
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

WAITING, EACH = 64, 8
"""Blocks that may wait for a stage, and further ones for each of its processes."""


class FewWaiting(BackpressurePolicy):
    """Holds what comes before a stage of processes while enough blocks wait for it.

    Ray Data holds an operator back by the bytes that wait for the next one. Blocks of picture ids have next to none, so
    that those of a whole catalogue would wait, and the driver keeps some kilobytes for each.
    """

    def can_add_input(self, op: Any) -> bool:
        """Tell whether an operator may start a task."""
        return not self._held(op)

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Return how many bytes may be taken from an operator's tasks, which wait meanwhile; None for any number."""
        return 0 if self._held(op) else None

    def _held(self, op: Any) -> bool:
        """Tell whether all that follows has enough; what waits for a held operator counts, too."""
        following = op.output_dependencies
        return bool(following) and all(self._has_enough(one) for one in following)

    def _has_enough(self, op: Any) -> bool:
        processes = isinstance(op, ActorPoolMapOperator)
        if not processes and not self._held(op):
            return False  # it may wait for more blocks before it starts, as one that writes files does
        limit = WAITING + sum(EACH * pool.max_size() for pool in op.get_autoscaling_actor_pools())
        return bool(self._topology[op].total_enqueued_input_blocks() >= limit)


POLICIES = [*ENABLED_BACKPRESSURE_POLICIES, FewWaiting]
"""The value of Ray Data's setting of that name."""
