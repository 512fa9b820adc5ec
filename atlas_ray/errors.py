"""The errors a caller can act on. Each message names the value, its origin and what to do."""

import sys

RETRYABLE_CODES = frozenset({"bad_credentials", "dns", "rate_limited", "server_error", "timeout", "unreachable"})
"""Codes of `ItemError` that say nothing of the item itself: the same request may do well later."""


class UserError(Exception):
    """A mistake in what the user gave: the command ends with one line and exit code 2."""


class StorageError(UserError):
    """A URI that cannot be read or written."""


class TaxonomyError(UserError):
    """A taxonomy that is damaged, of another kind, or does not fit the model."""


class CatalogError(UserError):
    """A catalogue that cannot be read as the tables of `atlas_ray.records`."""


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


class RunError(Exception):
    """A run that failed by no mistake of the user's: the command ends with one line and exit code 1."""


class AuditError(RunError):
    """A run whose inputs and outputs do not balance."""


class NotFiniteError(RunError):
    """Numbers that are none: a training that diverged, or a model whose answers are no numbers."""
