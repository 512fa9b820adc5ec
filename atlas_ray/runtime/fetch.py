"""The stage that reads the bytes of pictures."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.arrays import Booleans
from atlas_ray.errors import FetchError
from atlas_ray.io.objects import HashedObject, ObjectReader
from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.outcomes import READ, with_errors
from atlas_ray.runtime.progress import tell_block

FETCH_STAGE = "fetch"
Gate = Callable[[pa.Table], Booleans]
"""A function of a block that tells which of its pictures do not have to be read, (rows,) bool."""


class Fetch:
    """An actor that reads the bytes of pictures; several blocks at a time, which share its threads."""

    def __init__(
        self,
        progress: Any,
        *,
        threads: int,
        timeout_s: float,
        outage_s: float,
        read: bool,
        make_gate: Callable[[], Gate] | None = None,
    ) -> None:
        self._progress = progress
        self._read = read
        self._gate = make_gate() if make_gate else None
        # Few tries, for failures of seconds. For longer ones the reader waits until the store answers.
        self._reader = ObjectReader(
            threads=threads,
            timeout_s=timeout_s,
            attempts=3,
            store_retries=4,
            outage_s=outage_s,
            say=progress.say.remote,
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add `bytes` and `READ`, null if there is no picture or it is not read, and the error columns."""
        started = time.time()
        uris = table["image_uri"].to_pylist()
        spared = np.zeros(len(uris), bool) if self._gate is None else self._gate(table)
        gated = {} if self._gate is None else {"gate": (started, time.time())}
        rows = [row for row, uri in enumerate(uris) if self._read and uri != NO_PICTURE and not spared[row]]
        contents: list[bytes | None] = [None] * len(uris)
        sha256: list[str | None] = [None] * len(uris)
        etag: list[str | None] = [None] * len(uris)
        errors: dict[int, FetchError] = {}
        for row, outcome in zip(rows, self._reader.get_many([uris[row] for row in rows]), strict=True):
            if isinstance(outcome, HashedObject):
                contents[row], etag[row], sha256[row] = outcome
            else:
                errors[row] = outcome
        tell_block(self._progress, {}, fetch=(started, time.time()), **gated)
        out = table
        for name, values in zip(READ.names, (sha256, etag), strict=True):
            out = out.append_column(name, pa.array(values, pa.string()))
        out = out.append_column("bytes", pa.array(contents, pa.large_binary()))
        return with_errors(out, FETCH_STAGE, errors)
