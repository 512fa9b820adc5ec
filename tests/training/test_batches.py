"""A worker's share of the pictures, from a shard that gives what it is told to."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from atlas_ray.training.batches import Batch, Batches, Examples

SIZE = 4
CPU = torch.device("cpu")


class Shard:
    """Stands for Ray Data's shard: each epoch gives the same batches."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches
        self.asked: list[int] = []
        self.drained = 0

    def iter_batches(self, *, batch_size: int, batch_format: str, prefetch_batches: int) -> Iterator[Batch]:
        assert batch_format == "numpy"
        self.asked.append(batch_size)
        yield from self.batches
        self.drained += 1


def batch(*labels: int, refused: tuple[int, ...] = ()) -> Batch:
    """A batch whose pictures are filled with their labels; those of refused ones with zeros."""
    pixels = np.stack([np.full((3, SIZE, SIZE), label, np.uint8) for label in labels])
    for label in refused:
        pixels[labels.index(label)] = 0
    return {
        "inputs": pixels,
        "label": np.array(labels, dtype=np.int64),
        "name": np.array([f"{label}.jpg" for label in labels], dtype=object),
        "refused": np.array(["empty: 0 bytes" if label in refused else "" for label in labels], dtype=object),
    }


def batches(shard: Shard) -> Batches:
    return Batches(
        shard, blank=(torch.zeros((3, SIZE, SIZE), dtype=torch.uint8), torch.zeros((), dtype=torch.int64)), device=CPU
    )


def seen(stream: Iterator[Examples]) -> list[Examples]:
    """Take what each step sees at its time."""
    found = []
    for pictures in stream:
        assert pictures.inputs.dtype == torch.uint8
        assert pictures.labels.dtype == torch.int64
        assert pictures.usable.dtype == torch.float32
        found.append(replace(pictures))
    return found


def labels(found: list[Examples]) -> list[list[int]]:
    return [pictures.labels.tolist() for pictures in found]


def usable(found: list[Examples]) -> list[list[float]]:
    return [pictures.usable.tolist() for pictures in found]


def test_pictures_come_as_they_are() -> None:
    shard = Shard(batch(1, 2, 3), batch(4, 5, 6))
    found = seen(batches(shard).steps(3, 2))
    assert labels(found) == [[1, 2, 3], [4, 5, 6]]
    assert usable(found) == [[1, 1, 1]] * 2
    for pictures in found:
        assert pictures.inputs.shape == (3, 3, SIZE, SIZE)
        assert pictures.inputs[:, 0, 0, 0].equal(pictures.labels.to(torch.uint8))
    assert shard.asked == [3]


def test_a_shard_that_ends_early_is_filled_up() -> None:
    found = seen(batches(Shard(batch(1, 2, 3), batch(4, 5, 6))).steps(3, 5))
    assert usable(found) == [[1, 1, 1]] * 2 + [[0, 0, 0]] * 3
    assert all(pictures.inputs.shape == (3, 3, SIZE, SIZE) for pictures in found)
    assert labels(found)[2:] == [[4, 5, 6]] * 3  # real pictures, so that normalizations keep their statistics


def test_a_batch_that_is_too_small_is_left_out() -> None:
    found = seen(batches(Shard(batch(1, 2, 3), batch(4, 5))).steps(3, 2))
    assert labels(found) == [[1, 2, 3]] * 2
    assert usable(found) == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("shard", [Shard(), Shard(batch(1))])
def test_a_shard_without_a_batch_gives_blank_ones(shard: Shard) -> None:
    found = seen(batches(shard).steps(2, 3))
    assert [pictures.inputs.shape for pictures in found] == [(2, 3, SIZE, SIZE)] * 3
    assert labels(found) == [[0, 0]] * 3
    assert usable(found) == [[0, 0]] * 3


def test_more_batches_than_steps_are_drained() -> None:
    shard = Shard(*(batch(number, number) for number in range(5)))
    epochs = batches(shard)
    assert labels(seen(epochs.steps(2, 2))) == [[0, 0], [1, 1]]
    assert shard.drained == 1
    assert seen(epochs.steps(2, 0)) == []
    assert shard.drained == 2


def test_a_batch_that_was_given_out_stays_as_it_is() -> None:
    found = list(batches(Shard(batch(1, 2), batch(3, 4))).steps(2, 3))
    assert usable(found) == [[1, 1], [1, 1], [0, 0]]


def test_refused_pictures_are_replaced() -> None:
    raw = batch(1, 2, 3, 4, 5, refused=(1, 3, 4))
    before = raw["inputs"].copy(), raw["label"].copy()
    epochs = batches(Shard(raw))
    (found,) = seen(epochs.steps(5, 1))
    assert found.usable.tolist() == [0, 1, 0, 0, 1]
    assert found.labels.tolist() == [2, 2, 5, 2, 5]  # the good ones in turn
    assert found.inputs[:, 0, 0, 0].equal(found.labels.to(torch.uint8))  # a picture keeps its label
    assert epochs.refused == {f"{n}.jpg": "empty: 0 bytes" for n in (1, 3, 4)}
    np.testing.assert_array_equal(raw["inputs"], before[0])  # the shard's memory may be read only
    np.testing.assert_array_equal(raw["label"], before[1])


def test_a_batch_of_refused_pictures_has_no_weight() -> None:
    epochs = batches(Shard(batch(1, 2, refused=(1, 2)), batch(3, 4)))
    found = seen(epochs.steps(2, 2))
    assert usable(found) == [[0, 0], [1, 1]]
    assert found[0].inputs.shape == (2, 3, SIZE, SIZE)
    assert epochs.refused.keys() == {"1.jpg", "2.jpg"}


def test_refused_pictures_are_kept_over_epochs_each_once() -> None:
    shard = Shard(batch(1, 2, refused=(2,)))
    epochs = batches(shard)
    seen(epochs.steps(2, 1))
    shard.batches = (batch(1, 3, refused=(3,)), batch(1, 2, refused=(2,)))
    seen(epochs.steps(2, 2))
    assert epochs.refused.keys() == {"2.jpg", "3.jpg"}


def test_an_epoch_that_was_begun_is_the_next_one() -> None:
    shard = Shard(batch(1, 2), batch(3, 4))
    epochs = batches(shard)
    epochs.begin(2)
    assert labels(seen(epochs.steps(2, 2))) == [[1, 2], [3, 4]]
    assert shard.asked == [2]
    assert labels(seen(epochs.steps(2, 2))) == [[1, 2], [3, 4]]  # the one after it opens a stream of its own
    assert shard.asked == [2, 2]


def test_beginning_an_epoch_of_an_empty_shard() -> None:
    epochs = batches(Shard())
    epochs.begin(2)
    assert usable(seen(epochs.steps(2, 1))) == [[0, 0]]


def test_what_stops_a_stream_in_the_background_is_told() -> None:
    class Broken(Shard):
        def iter_batches(self, **keywords: Any) -> Iterator[Batch]:
            raise OSError("the store is gone")

    epochs = batches(Broken())
    epochs.begin(2)
    with pytest.raises(OSError, match="the store is gone"):
        seen(epochs.steps(2, 1))


def test_validation_sees_every_picture_once() -> None:
    epochs = batches(Shard(batch(1, 2, 3), batch(4, 5, refused=(4,))))
    found = seen(epochs.all(3))
    assert labels(found) == [[1, 2, 3], [5, 5]]
    assert usable(found) == [[1, 1, 1], [0, 1]]
    assert epochs.refused.keys() == {"4.jpg"}
