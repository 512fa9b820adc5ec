"""Errors that a caller can act on. Each message names the value, where it came from and what to do."""

import errno
import re
import sys
from typing import Any

CODES: dict[str, tuple[tuple[str, ...], str]] = {
    "bad_category_path": (("import", "relabel"), "A category path has another form than a text or a list of names."),
    "bad_credentials": (("fetch", "train", "serve"), "The store refuses the credentials, or they have expired."),
    "bad_encoding": (("import", "select", "relabel", "train"), "A text or a file's name is not valid Unicode."),
    "bad_image_uri": (("import", "train"), "A picture's name leads nowhere that may be read."),
    "bad_key": (("import",), "An object's key cannot be written as a path."),
    "bad_request": (("serve",), "The request is refused with a status that has no code of its own."),
    "bad_row": (("import", "select", "relabel", "train"), "A record is damaged, or has another shape than its file."),
    "bad_status": (("crawl",), "The server answers with a status that is neither a page nor a known refusal."),
    "bad_value": (("import", "select", "relabel", "train"), "A value that is needed cannot be read."),
    "busy": (("serve",), "The queues are full, or the answer would come too late; ask again after `Retry-After`."),
    "cannot_explain": (("serve",), "The model has no attention, so that it cannot say where it looked."),
    "contradicting_rows": (("import",), "A later row of a product has another title, category, store or split."),
    "corrupt": (("decode", "fetch", "train", "crawl", "serve"), "The bytes of a picture or a page are damaged."),
    "cross_site": (("serve",), "A page of another site asks with the browser's stored password."),
    "dns": (("fetch", "crawl", "serve"), "The host's name has no address."),
    "draining": (("serve",), "The endpoint is about to end; ask again."),
    "duplicate_product": (
        ("select",),
        "The products table has an earlier row of the same product, which counts.",
    ),
    "empty": (("import", "decode", "fetch", "train", "serve"), "The file has no bytes."),
    "empty_listing": (("crawl",), "A listing shows neither a product nor a next page."),
    "forbidden": (("fetch", "train", "crawl", "serve"), "Reading is not allowed, or the server refuses."),
    "forbidden_address": (("fetch", "crawl", "serve"), "The address is private, or this machine's own."),
    "forbidden_by_robots": (("fetch", "crawl", "serve"), "The robots.txt of the host forbids it."),
    "forbidden_uri": (("serve",), "The URI is not below a prefix that the endpoint may read."),
    "internal": (("serve",), "The endpoint failed; its log says why."),
    "internal_error": (("crawl",), "The crawler failed on this page."),
    "invalid_request": (("serve",), "A field of the request is missing, unknown or out of range."),
    "method_not_allowed": (("serve",), "The route exists, but not for this HTTP method."),
    "missing_image_uri": (("select", "relabel", "read", "fetch", "train", "migrate"), "A row of images has no URI."),
    "missing_images": (("import", "train"), "No row of a product names a picture or a text."),
    "missing_product_id": (
        ("import", "select", "relabel", "read", "fetch", "train", "migrate"),
        "A row has no product id.",
    ),
    "no_new_products": (("crawl",), "A listing led to no new product for `max_idle_pages` pages and was left."),
    "no_picture": (("serve",), "Where a model looked was asked of a product without a picture."),
    "noai": (("fetch", "crawl", "serve"), "The page or the server asks not to be used for machine learning."),
    "not_a_number": (("predict", "serve"), "The model's answer is NaN or infinite."),
    "not_a_picture": (("import",), "A file in a category folder does not have a picture's name."),
    "not_a_product": (("crawl",), "The page shows no product, or several."),
    "not_an_image": (("decode", "fetch", "train", "serve"), "The first bytes are not those of a picture."),
    "not_authenticated": (("serve",), "The request carries no known token."),
    "not_found": (("import", "fetch", "train", "crawl", "serve"), "There is no such file, object, page or route."),
    "not_html": (("crawl",), "The page is not HTML."),
    "not_ready": (("serve",), "A model does not answer yet."),
    "nothing_to_go_by": (("predict", "serve"), "The product has nothing that the model looks at."),
    "offsite": (("crawl",), "The link leads to another site than the store's."),
    "rate_limited": (("fetch", "train", "serve"), "The server asks for fewer requests (HTTP 429)."),
    "redirect_loop": (("crawl",), "The page redirects too many times."),
    "render_failed": (("crawl",), "Chromium could not show the page."),
    "request_timeout": (("serve",), "The body of the request did not come in time."),
    "server_error": (("fetch", "train", "crawl", "serve"), "The server answers with a status of 500 or more."),
    "timeout": (("fetch", "train", "crawl", "serve"), "There was no complete answer in time."),
    "too_large": (("decode", "fetch", "train", "crawl", "serve"), "There are more bytes than the limit allows."),
    "too_many_frames": (("decode", "fetch", "train", "serve"), "The animation has more frames than are taken."),
    "too_many_pixels": (("decode", "fetch", "train", "serve"), "The picture has more pixels than are decoded."),
    "too_many_redirects": (("fetch", "serve"), "The address redirects too many times."),
    "too_many_requests": (("crawl", "serve"), "More requests came than are allowed (HTTP 429)."),
    "too_small": (("decode", "fetch", "train", "serve"), "Both sides of the picture are shorter than the limit."),
    "truncated": (("decode", "fetch", "train", "crawl", "serve"), "The file or the page ends too early."),
    "unavailable": (("serve",), "The model does not answer; ask again."),
    "unknown_category": (
        ("import", "relabel", "serve"),
        "The taxonomy has no such path, or for relabel it is no leaf.",
    ),
    "unknown_model": (("serve",), "The endpoint has no model of this name."),
    "unknown_product": (("select", "relabel"), "The catalogue has no product of this id."),
    "unreachable": (("fetch", "train", "crawl", "serve"), "The connection failed or broke off."),
    "unreadable": (("fetch", "train", "serve"), "The file exists but cannot be read, or is no regular file."),
    "unsupported_format": (("decode", "fetch", "train", "serve"), "The picture is of a format that is not taken."),
    "unsupported_media_type": (("serve",), "The request is neither `multipart/form-data` nor `application/json`."),
    "unsupported_uri": (("fetch", "train", "crawl", "serve"), "The URI has another form than those that are read."),
    "zoomed": (("filter",), "The zoom filter takes the picture for a close-up; it is left out, not quarantined."),
}
"""Each error code with the stages that raise it and a sentence that explains it: the codes of an `ItemError`, of a
crawled page and of a refused request. Stages are those of the quarantine table; `serve` is the endpoint."""
RETRYABLE_CODES = frozenset({"bad_credentials", "dns", "rate_limited", "server_error", "timeout", "unreachable"})
"""Error codes of failures that may not occur again if the same request is made later."""
STORE_ERROR = re.compile(r"(AWS Error |Azure Error:|google::cloud::Status\()[^\n]*")
"""A pattern of Arrow's messages about a store's answer, or lack of one; other messages are about the file."""
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a disk that cannot be written to: it is full, or a quota or the largest file size is reached."""


class UserError(Exception):
    """A mistake in the user's input: the command ends with one line and exit code 2."""


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


class MissingExtraError(UserError):
    """A package that a command needs and that is not installed."""


EXTRA_OF = {
    **dict.fromkeys(("aiohttp", "protego", "uvloop", "yarl"), "fetch"),
    **dict.fromkeys(
        ("cssselect", "extruct", "lxml", "parsel", "pyRdfa", "rdflib", "scrapy", "scrapy_playwright"), "crawl"
    ),
    **dict.fromkeys(("fastapi", "fastapi_offline", "starlette"), "serve"),
    **dict.fromkeys(("nncf", "openvino"), "cpu"),
    "timm": "timm",
    **dict.fromkeys(("tokenizers", "transformers"), "text"),
    "deltalake": "delta",
    "lance": "lance",
    "lancedb": "embed",
    "pyiceberg": "iceberg",
    "python_calamine": "excel",
    "skimage": "zoom",
    "mlflow": "mlflow",
    "google.cloud": "gcs",
    "azure": "azure",
}
"""The extra of `pip install 'atlas-ray[EXTRA]'` that brings a module, for each module that not every command needs."""


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
    """Print a notice that does not end a run, such as a figure that may mislead, on standard error."""
    print(f"atlas-ray: {text}", file=sys.stderr, flush=True)


class RunError(Exception):
    """A failure that is nobody's mistake: the command ends with one line and exit code 1."""


class DiskFullError(RunError):
    """A disk that cannot be written to."""


class LeaseLostError(RunError):
    """An output that another command has taken over meanwhile."""


class OutageError(RunError):
    """A service that has been away for too long."""


class RayLostError(RunError):
    """A process or a machine of Ray that ended beneath a command, and that Ray could not do without."""


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
    """A model's answer that is invalid, such as NaN."""


NOT_A_NUMBER = AnswerError(
    "not_a_number", "the model's answer is NaN or infinite: its weights or its precision are not fit for this input"
)


class RowError(ItemError):
    """A row of an imported catalogue that cannot be used."""


class AuditError(RunError):
    """A run whose inputs and outputs do not balance."""


class DeviceError(RunError):
    """A GPU that fails over and over."""


class NotFiniteError(RunError):
    """NaN or infinite numbers: the training diverged, or a model's answers are not finite."""


def reason_of(error: BaseException) -> UserError | RunError | None:
    """Find the mistake or failure that caused an error of a library or of another process.

    Returns:
        An error whose message is enough for a person; None if only the traceback explains it.
    """
    pending: list[Any] = [error]
    seen: set[int] = set()
    lost: RayLostError | None = None
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, UserError | RunError):
            # An error that a Ray task raised comes with the traceback of the task as its text.
            cause = getattr(current, "cause", current)
            return _without_advice(cause if isinstance(cause, UserError | RunError) else current)
        module = current.name or "" if isinstance(current, ModuleNotFoundError) else ""
        if extra := EXTRA_OF.get(module.partition(".")[0]) or EXTRA_OF.get(".".join(module.split(".")[:2])):
            return MissingExtraError(f"{module} is not installed; pip install 'atlas-ray[{extra}]' brings it")
        if (number := system_number(current)) in FULL_DISK:
            where = RAY_ADVICE.sub("", str(getattr(current, "filename", None) or ""))
            return disk_full(number, where or "a file of this run, or a temporary one")
        # Raised while Ray reads or writes its own files.
        if isinstance(current, OSError) and (answer := STORE_ERROR.search(str(current))):
            return OutageError(f"the object store fails: {answer[0][:300]}; give the same command again")
        if type(current).__module__ == "ray.exceptions" and type(current).__name__ in LOST:
            what = str(current).split("\n")[0].split(". ")[0].rstrip(".")
            lost = RayLostError(f"Ray lost what this command runs on: {what}; give the same command again")
        pending += [getattr(current, name, None) for name in _INNER]
        pending += list(getattr(current, "worker_failures", {}).values())
    return _told(str(error)) or lost


LOST = (
    "LocalRayletDiedError", "NodeDiedError", "OwnerDiedError", "WorkerCrashedError", "OutOfMemoryError",
    "ActorUnschedulableError",
)  # fmt: skip
"""Ray's errors of a process or a machine that ended for no reason of the program."""


def _told(traceback: str) -> UserError | RunError | None:
    """Read an error from a traceback, which may be all that is left of one in a stage of Ray Data or of a new actor.

    An outage may stand anywhere in it, another error of this module where it ends, or causes what comes after.
    """
    error = rf"^{__name__}\.(\w+): (.+)(?=\s*\Z|\s+The above exception was the direct cause)"
    told = re.search(rf"\b({OutageError.__name__}): (.+)", traceback) or re.search(error, traceback, re.MULTILINE)
    kind = globals().get(told[1]) if told else None
    if told is None or not (isinstance(kind, type) and issubclass(kind, UserError | RunError)):
        return None
    return kind(told[2])


_INNER = ("__cause__", "__context__", "cause", "controller_failure", "_base_exc")
"""Attributes under which an error keeps the error that caused it; the last three are Ray's."""


RAY_ADVICE = re.compile(r"(^|\n)Failed to .+? after \d+/\d+ attempts \(total backoff.*", re.DOTALL)
"""What Ray Data adds to the text of an error in one of its tasks: how to have it tried again. Of an `OSError` without a
file it becomes the file's name."""


def _without_advice(error: UserError | RunError) -> UserError | RunError:
    if error.args and isinstance(error.args[0], str):
        error.args = (RAY_ADVICE.sub("", error.args[0]), *error.args[1:])
    return error


def system_number(error: BaseException) -> int:
    """Return the system's error number, 0 if there is none; SQLite and libraries written in Rust state it as text."""
    if isinstance(error, OSError) and error.errno:
        return int(error.errno)
    text = str(error)
    if text == "database or disk is full":
        return errno.ENOSPC
    found = re.search(r"\(os error (\d+)\)", text)
    return int(found[1]) if found else 0


def disk_full(number: int, where: str) -> DiskFullError:
    """Return the error of a disk that cannot be written to.

    Args:
        number: The system's error number, one of `FULL_DISK`.
        where: The file that was written.
    """
    if number == errno.EFBIG:
        return DiskFullError(f"{where}: as large as its disk, or a limit of this process, lets a file become")
    return DiskFullError(f"{where}: no space left on its disk; make room, and give the same command again")
