"""Records of finished runs: `run.json`."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from atlas_ray.errors import RETRYABLE_CODES, CatalogError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.version import __version__

RUN = "run.json"


@dataclass(frozen=True)
class RunReport:
    """The outcome of a run over a catalogue's pictures, as `run.json` holds it."""

    output: str
    run: dict[str, Any]
    already_done: bool = False
    """The output held a finished run of the same settings, and nothing was done."""

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the pictures: those that came in (`input`), and their outcomes."""
        return dict(self.run["counts"])

    @property
    def quarantined_fraction(self) -> float:
        """The share of the pictures that is in quarantine, or was answered about without being seen."""
        unseen = sum(self.run.get("without_picture_by_code", {}).values())
        return float((self.counts["quarantined"] + unseen) / max(self.counts["input"], 1))


def may_pass(run: Mapping[str, Any]) -> int:
    """Return how many pictures a finished run did not get for reasons that may have passed."""
    codes = (run.get(name, {}) for name in ("quarantined_by_code", "without_picture_by_code"))
    return sum(int(count) for found in codes for code, count in found.items() if code in RETRYABLE_CODES)


def read_run(output: str) -> dict[str, Any] | None:
    """Return the account of a finished run, or None if there is none.

    Raises:
        CatalogError: if it is damaged.
    """
    uri = storage.join(output, RUN)
    if not storage.exists(uri):
        return None
    try:
        run = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise CatalogError(f"{uri}: not JSON: {error}") from None
    if not isinstance(run, dict):
        raise CatalogError(f"{uri}: a {type(run).__name__}; expected the account of a run")
    return run


def write_run(output: str, job: str, began: float, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write `run.json`, which completes a run, and return it.

    Args:
        output: The run's folder.
        job: Its verb.
        began: When, in seconds of the clock.
        fields: What else there is to say, JSON values by name.
    """
    run = {
        "job": job,
        "written_by": f"atlas_ray {__version__}",
        "versions": {"ray": version("ray"), "python": platform.python_version(), "pyarrow": pa.__version__},
        "started_at": datetime.fromtimestamp(began, UTC).isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        **fields,
    }
    storage.write_bytes(
        storage.join(output, RUN), json.dumps(run, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    )
    return run


def timings(spans: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    """Return how long each stage's workers were busy, and the stream from first read to last write, in seconds."""
    busy = {f"{stage}_busy": span[2] for stage, span in spans.items()}
    if "fetch" in spans and "write" in spans:
        busy["first_read_to_last_write"] = spans["write"][1] - spans["fetch"][0]
    return busy


def quarantine_codes(output: str) -> dict[str, int]:
    """Count the quarantine by error code."""
    return _codes(storage.join(output, "quarantine"), "error_code")


def picture_errors(output: str, table: str = "predictions") -> dict[str, int]:
    """Count the rows of a table whose picture could not be had, by error code."""
    return _codes(storage.join(output, table), "picture_error")


def _codes(table: str, name: str) -> dict[str, int]:
    codes = Counter[str]()
    for rows in open_table(table, pa.schema([(name, pa.string())]), may_be_missing=True).batches():
        codes.update(text.partition(":")[0] for text in rows[name].drop_null().to_pylist())
    return dict(codes)
