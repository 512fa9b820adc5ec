"""Sheets of Excel and OpenDocument workbooks, row by row.

A workbook is opened by a process of its own with bounded memory: a file of a few kilobytes can ask for more of it than
any machine has, and a library that runs out of it ends its process.
"""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from atlas_ray.errors import CatalogError
from atlas_ray.formats.values import printable
from atlas_ray.io import storage

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
MEMORY_BYTES = 6 << 30
"""The most memory that a workbook may take; a sheet of a million rows and 30 columns takes half of it."""
CPU_S = 1800
"""The most processor time that reading a workbook may take."""
OPEN_S = 1800
"""The most time that opening a workbook may take: a library that finds no memory for its last words waits for ever."""
MAX_FILE_BYTES = 1 << 30
EXACT = 2**53
"""The first whole number from which a cell no longer tells neighbours apart."""


def read_sheet(uri: str, sheet: str = "") -> Iterator[list[Any]]:
    """Yield the rows of a sheet from its first one on; cells are texts, numbers, true or false; "" if empty.

    Whole numbers are such, dates and times are texts in ISO 8601, and a formula that failed is an empty cell.

    Args:
        uri: The workbook.
        sheet: Its name; "" for the first one.

    Raises:
        CatalogError: if the workbook is damaged or too large, or has no such sheet.
    """
    import python_calamine  # noqa: F401 - names the extra here, not in the other process

    with tempfile.TemporaryDirectory(prefix="atlas_ray-") as folder:
        command = [sys.executable, "-m", "atlas_ray.formats.workbooks", _local(uri, folder), sheet]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RUST_BACKTRACE": "0"}
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            assert process.stdout is not None
            finished = False
            try:
                for line in process.stdout:
                    row = json.loads(line)
                    if isinstance(row, dict):
                        raise CatalogError(f"{uri}: {row['error']}")
                    finished = row is None
                    if row is not None:
                        yield row
            finally:
                process.kill()
            if not finished:
                raise CatalogError(f"{uri}: {_end(process.wait())}; save its sheet as a CSV in UTF-8")


def _local(uri: str, folder: str) -> str:
    """Return the path of a workbook on this machine."""
    size = storage.size(uri)
    if size > MAX_FILE_BYTES:
        raise CatalogError(f"{uri}: a workbook of {size} bytes; save its sheet as a CSV in UTF-8")
    if "://" not in uri:
        return uri
    path = Path(folder) / f"workbook{Path(uri).suffix}"
    with storage.open_input(uri) as stream, path.open("wb") as copy:
        shutil.copyfileobj(stream, copy)
    return str(path)


def _end(code: int) -> str:
    if -code in (signal.SIGXCPU, signal.SIGKILL):
        return f"reading it takes more than {CPU_S} s of a processor"
    if -code == signal.SIGALRM:
        return f"opening it takes more than {OPEN_S} s"
    return f"it cannot be read within {MEMORY_BYTES >> 30} GiB of memory"


def _cell(value: Any) -> Any:
    """Return a cell as JSON has it."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return int(value) if value.is_integer() and abs(value) < EXACT else value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value if isinstance(value, str | int) else str(value)


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _main(path: str, sheet: str) -> None:
    """Write the rows of a sheet as JSON Lines, and null after them; an object with `error` if that is not possible."""
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    for what, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S)):
        resource.setrlimit(what, (limit, limit))
    signal.alarm(OPEN_S)
    try:
        workbook = CalamineWorkbook.from_path(path)
        names = workbook.sheet_names
        if not names or (sheet and sheet not in names):
            shown = ", ".join(map(repr, names[:12])) or "none"
            return _say({"error": f"no sheet {printable(sheet)!r} in it; its sheets are {shown}"})
        found = workbook.get_sheet_by_name(sheet or names[0])
        signal.alarm(0)  # from here on it may wait for its reader
        for row in found.iter_rows():
            _say(list(map(_cell, row)))
        _say(None)
    except PasswordError:
        _say({"error": "a workbook with a password; save it without one"})
    except (CalamineError, OSError, ValueError) as error:
        _say({"error": f"a damaged workbook ({' '.join(printable(str(error)).split())[:200]})"})


if __name__ == "__main__":
    _main(*sys.argv[1:])
