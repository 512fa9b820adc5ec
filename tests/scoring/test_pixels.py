"""Blocks of decoded pictures, as they come from a stage of their own."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch

from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.runtime.outcomes import with_errors
from atlas_ray.scoring.predict import _pixels, decode_block
from tests.support.parts import picture

SIZE = 24


def block(files: list[bytes]) -> pa.Table:
    table = pa.table({"image_id": range(len(files)), "bytes": pa.array(files, pa.large_binary())})
    return decode_block(with_errors(table, "fetch", {}), [SIZE], PictureLimits())


def test_a_whole_block_is_not_copied() -> None:
    files = [picture(number) for number in range(5)]
    table = block(files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _pixels(table, np.arange(5), SIZE)
    assert torch.equal(found, decode_batch(files, SIZE)[0])
    (column,) = table[f"pixels_{SIZE}"].chunks
    assert found.data_ptr() == column.buffers()[1].address


@pytest.mark.parametrize("rows", [[], [2], [3, 1], [0, 1, 2, 4]])
def test_some_rows_of_a_block_are_those_rows(rows: list[int]) -> None:
    files = [picture(number) for number in range(5)]
    files[3] = files[3] if 3 in rows else b"no picture"
    found = _pixels(block(files), np.array(rows, int), SIZE)
    assert torch.equal(found, decode_batch([files[row] for row in rows], SIZE)[0])


def test_of_a_part_of_a_block_its_own_rows_are_found() -> None:
    files = [picture(number) for number in range(6)]
    found = _pixels(block(files).slice(2, 3), np.arange(3), SIZE)
    assert torch.equal(found, decode_batch(files[2:5], SIZE)[0])
