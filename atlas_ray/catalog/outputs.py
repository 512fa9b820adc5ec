"""The output of an import, marked while it is written."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator

from atlas_ray.errors import OutputError, StorageError
from atlas_ray.formats.tables import UNFINISHED
from atlas_ray.io import storage
from atlas_ray.runtime.tables import SPLIT

TABLES = ("products", "images", "quarantine")
PART = re.compile(r"part-\d{5,}(-[0-9a-f]{16})?\.parquet")
FILES = ("taxonomy.json", SPLIT)


@contextlib.contextmanager
def unfinished(output: str) -> Iterator[None]:
    """Mark an output while an import writes it. What an earlier one left that did not finish is deleted first.

    Where the import fails, its quarantine stays, to see why; the next one deletes it.

    Raises:
        OutputError: if the output holds a catalogue, or files that no import left.
    """
    marker = storage.join(output, UNFINISHED)
    if storage.exists(marker) and not storage.exists(storage.join(output, "run.json")):
        _delete(output, TABLES)
        for name in FILES:
            storage.delete_file(storage.join(output, name))
    if storage.exists(storage.join(output, "run.json")) or any(
        storage.files(storage.join(output, name)) for name in TABLES
    ):
        raise OutputError(f"{output} already holds a catalogue; import into a new folder, or delete it")
    storage.write_bytes(marker, json.dumps({"job": "import"}).encode())
    try:
        yield
    except BaseException:
        with contextlib.suppress(StorageError):  # the first error is the one to tell
            _delete(output, ("products", "images"))
        raise
    storage.delete_file(marker)


def _delete(output: str, tables: Iterable[str]) -> None:
    for table in tables:
        files = storage.files(storage.join(output, table))
        storage.delete_files(file for file in files if PART.fullmatch(file.rpartition("/")[2]))
