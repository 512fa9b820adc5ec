"""Copies of a run's files for a table that cannot refer to them."""

import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from atlas_ray.formats.table_files import TableFile
from atlas_ray.io import storage
from atlas_ray.publishing.published import PublishedRun

THREADS = 8
"""Files that are copied at the same time."""
BLOCK_BYTES = 8 << 20
ODD_LETTER = re.compile(r"[^\w./:+= @,-]", re.ASCII)
"""A pattern of letters that some reader of a table would take for a part of an address, or decode."""


def copy_files(run: PublishedRun, write: Callable[[str, Any], None]) -> list[str]:
    """Copy the files of a run and return their names, which are the same each time.

    Args:
        run: The run.
        write: Takes a name and an open file, and copies it.
    """
    names = [f"atlas-ray-{run.id}-{number:05d}.parquet" for number in range(len(run.files))]

    def copy(name: str, file: TableFile) -> None:
        with storage.open_input(file.uri) as source:
            write(name, source)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, names, run.files))
    return names


def pour(source: Any, target: Any) -> None:
    """Copy an open file into another one."""
    shutil.copyfileobj(source, target, BLOCK_BYTES)


def are_plain(uris: Sequence[str]) -> bool:
    """Tell whether every reader of a table takes these addresses for what they are."""
    return not any(ODD_LETTER.search(uri) for uri in uris)
