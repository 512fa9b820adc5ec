"""The errors a caller can act on. Each message names the value, its origin and what to do."""

import errno
import re
import sys
from typing import Any

RETRYABLE_CODES = frozenset({"bad_credentials", "dns", "rate_limited", "server_error", "timeout", "unreachable"})
"""Codes of `ItemError` that say nothing of the item itself: the same request may do well later."""
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says of a disk that takes no more: it is full, or its quota or the largest file is reached."""


class UserError(Exception):
    """A mistake in what the user gave: the command ends with one line and exit code 2."""


class StorageError(UserError):
    """A URI that cannot be read or written."""


class TaxonomyError(UserError):
    """A taxonomy that is damaged, of another kind, or does not fit the model."""


class CatalogError(UserError):
    """A catalogue that cannot be read as the tables of `atlas_ray.schemas`."""


class ArtifactError(UserError):
    """A model folder that is damaged, incomplete or of another kind."""


class ConfigError(UserError, ValueError):
    """A setting out of its range."""


class OutputError(UserError):
    """An output folder that holds something else than what this run would write."""


class EmbeddingError(UserError):
    """Embeddings that cannot be searched, or a product that they have no answer about."""


class SearchError(UserError):
    """A search for settings of which no trial finished."""


class ClusterError(UserError):
    """A Ray cluster that cannot be reached."""


class ServiceError(UserError):
    """An endpoint that refuses, or does not answer."""


class UnauthenticatedError(ServiceError):
    """An endpoint that knows no token of the caller's."""


def tell(text: str) -> None:
    """Tell a person of something that does not end a run, such as a figure that is not what it seems."""
    print(f"atlas-ray: {text}", file=sys.stderr, flush=True)


class RunError(Exception):
    """What ends a run without anybody's mistake: the command ends with one line and exit code 1."""


class DiskFullError(RunError):
    """A disk that takes no more."""


class LeaseLostError(RunError):
    """An output that another command has taken over meanwhile."""


class OutageError(RunError):
    """A service that has been away for too long."""


class ItemError(Exception):
    """One input that cannot be processed; it becomes a quarantine row and the job goes on.

    Attributes:
        code: A short stable name, such as `not_found`; it is part of the interface.
        message: A sentence for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class FetchError(ItemError):
    """An object that could not be read from storage."""


class PictureError(ItemError):
    """Bytes that are not a picture this project takes."""


class AnswerError(ItemError):
    """A model's answer that is none."""


NOT_A_NUMBER = AnswerError(
    "not_a_number", "the model's answer is NaN or infinite: its weights or its precision are not fit for this input"
)


class RowError(ItemError):
    """A row of an imported catalogue that cannot be used."""


class AuditError(RunError):
    """A run whose inputs and outputs do not balance."""


class NotFiniteError(RunError):
    """Numbers that are none: a training that diverged, or a model whose answers are no numbers."""


def reason_of(error: BaseException) -> UserError | RunError | None:
    """Find what can be told in a line behind an error that came out of a library or of another process.

    Returns:
        The mistake or the failure; None where there is neither, and only a traceback says more.
    """
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, UserError | RunError):
            # One that a Ray task raised comes with the traceback of the task as its text.
            cause = getattr(one, "cause", one)
            return cause if isinstance(cause, UserError | RunError) else one
        if (number := system_number(one)) in FULL_DISK:
            return disk_full(number, str(getattr(one, "filename", None) or "a temporary file"))
        pending += [getattr(one, name, None) for name in _INNER]
        pending += list(getattr(one, "worker_failures", {}).values())
    # Of what a stage of Ray Data raised there may be nothing left but its traceback's text.
    told = re.search(rf"\b{OutageError.__name__}: (.+)", str(error))
    return OutageError(told[1]) if told else None


_INNER = ("__cause__", "__context__", "cause", "controller_failure", "_base_exc")
"""Where an error keeps another one; the last three are Ray's."""


def system_number(error: BaseException) -> int:
    """Return the system's number of an error, 0 for none; what is written in Rust and SQLite tell it in a text."""
    if isinstance(error, OSError) and error.errno:
        return int(error.errno)
    text = str(error)
    if text == "database or disk is full":
        return errno.ENOSPC
    found = re.search(r"\(os error (\d+)\)", text)
    return int(found[1]) if found else 0


def disk_full(number: int, where: str) -> DiskFullError:
    """Return what to say of a disk that takes no more.

    Args:
        number: The system's, of `FULL_DISK`.
        where: What was to be written.
    """
    if number == errno.EFBIG:
        return DiskFullError(f"{where}: as large as its disk, or a limit of this process, lets a file become")
    return DiskFullError(f"{where}: no space left on its disk; make room, and give the same command again")
