"""A GPU that a process can no longer use: the process is given up, and not the run.

After an error such as an illegal access to memory or a failed assertion of a kernel, all that the process asks of the
GPU fails. Another process on the same GPU works, so that Ray starts one and gives it the block again.
"""

import functools
import os
import platform
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import ray
import torch

from atlas_ray.errors import DeviceError

Model = TypeVar("Model")
Call = Callable[[Model, pa.Table], pa.Table]
LOST_IN_A_ROW = 3
"""How often in a row, with no block done anywhere in between, a GPU may be lost in a run."""


def given_up_when_lost(call: Call[Model]) -> Call[Model]:
    """Wrap the `__call__` of a model with a `_progress`, its run's `ProgressActor`.

    Raises:
        DeviceError: if the GPU is lost over and over, as by a block that the model cannot take.
    """

    @functools.wraps(call)
    def asked(model: Model, table: pa.Table) -> pa.Table:
        try:
            return call(model, table)
        except torch.AcceleratorError as error:  # too little memory is another error
            reason = str(error).splitlines()[0]
            progress: Any = vars(model)["_progress"]
            line = f"a GPU of {platform.node()} is lost: {reason}"
            times = ray.get(progress.lost.remote(f"atlas-ray: {line}"))
        if times > LOST_IN_A_ROW:
            raise DeviceError(f"{line}; {times} times in a row. See `nvidia-smi` and the system's log there")
        os._exit(1)

    return asked
