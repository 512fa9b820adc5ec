import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from atlas_ray.io.ahead import ahead


def test_results_come_in_order_though_later_ones_are_ready_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert list(ahead(slow_at_first, range(20), threads=4)) == [number * number for number in range(20)]


def test_only_some_results_are_held_of_a_stream_without_end() -> None:
    begun = itertools.count()

    def items() -> Iterator[int]:
        while True:
            yield next(begun)

    results = ahead(lambda number: number, items(), threads=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert next(begun) <= 5 + 2 * 3
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_an_error_comes_in_its_turn() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = ahead(fail_at_two, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
