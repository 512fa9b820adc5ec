"""How many blocks may wait for a stage of processes."""

from typing import Any

import pytest
import ray.data
from ray.data import ActorPoolStrategy

from atlas_ray.runtime import backpressure
from atlas_ray.runtime.backpressure import EACH, WAITING
from atlas_ray.runtime.block_stats import ForgetBlockStats
from atlas_ray.runtime.session import connect

pytestmark = pytest.mark.ray

BLOCKS = 400


class Slow:
    """A stage that lets all before it run ahead."""

    def __call__(self, table: Any) -> Any:
        import time

        time.sleep(0.005)
        return table


@pytest.mark.parametrize("bounded", [True, False])
def test_a_slow_stage_has_few_blocks_waiting(bounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    connect()
    most: dict[str, int] = {}
    step = ForgetBlockStats.on_execution_step

    def look(callback: Any, executor: Any) -> None:
        for operator, state in executor._topology.items():
            most[operator.name] = max(most.get(operator.name, 0), state.total_enqueued_input_blocks())
        step(callback, executor)

    monkeypatch.setattr(ForgetBlockStats, "on_execution_step", look)
    if not bounded:
        monkeypatch.setattr(backpressure.FewWaiting, "_held", lambda *_: False)
    stream = (
        ray.data.range(BLOCKS * 4, override_num_blocks=4)
        .repartition(target_num_rows_per_block=4)
        .map_batches(Slow, batch_size=None, batch_format="pyarrow", compute=ActorPoolStrategy(min_size=1, max_size=1))
    )
    assert sum(len(batch["id"]) for batch in stream.iter_batches(batch_size=None)) == BLOCKS * 4
    waiting = next(count for name, count in most.items() if "Slow" in name)
    limit = WAITING + EACH
    # What an operator's tasks have made at once comes on top.
    assert waiting <= limit + 40 if bounded else waiting > limit + 100
