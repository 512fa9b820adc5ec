"""Azure Blob Storage: `az://container/key`.

The account comes from `AZURE_STORAGE_CONNECTION_STRING`, or from `AZURE_STORAGE_ACCOUNT_NAME` with
`AZURE_STORAGE_ACCOUNT_KEY` or `AZURE_STORAGE_SAS_TOKEN`; without either, the credentials are the default ones of
Azure's libraries.
"""

import base64
import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobServiceClient, ExponentialRetry
from obstore.store import AzureStore
from pyarrow import fs

from atlas_ray.errors import StorageError
from atlas_ray.io.stores import CONNECT_S, RequestError, bucket_options, endpoint_parts

if TYPE_CHECKING:
    from obstore.store import AzureConfig

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


@dataclass(frozen=True)
class Account:
    """A storage account, and what lets this process use it."""

    name: str
    key: str
    sas: str
    endpoint: str

    @classmethod
    def of_environment(cls) -> "Account":
        """Read the account from the environment.

        Raises:
            StorageError: if it names none, or what it names is malformed.
        """
        text = os.environ.get(CONNECTION, "")
        parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
        name = parts.get("AccountName") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        key = parts.get("AccountKey") or os.environ.get("AZURE_STORAGE_ACCOUNT_KEY", "")
        sas = parts.get("SharedAccessSignature") or os.environ.get("AZURE_STORAGE_SAS_TOKEN", "")
        if not name:
            raise StorageError(f"az:// needs a storage account: set {CONNECTION} or AZURE_STORAGE_ACCOUNT_NAME")
        try:
            base64.b64decode(key, validate=True)
        except ValueError:
            raise StorageError(f"the key of the storage account {name!r} is damaged: it is no base64") from None
        suffix = parts.get("EndpointSuffix", "core.windows.net")
        scheme = parts.get("DefaultEndpointsProtocol", "https")
        endpoint = parts.get("BlobEndpoint") or f"{scheme}://{name}.blob.{suffix}"
        endpoint_parts(f"BlobEndpoint in {CONNECTION}", endpoint)
        return cls(name, key, "" if key else sas.removeprefix("?"), endpoint.rstrip("/"))


class Azure:
    """The store of `az://`; see `atlas_ray.io.stores.Store`."""

    def filesystem(self) -> fs.FileSystem:
        """Open the store for tables and documents."""
        return _filesystem(Account.of_environment())

    def bucket(self, name: str, *, timeout_s: float, retries: int) -> AzureStore:
        """Open a container for many objects."""
        account = Account.of_environment()
        config: AzureConfig = {"account_name": account.name, "endpoint": account.endpoint}
        provider = None
        if account.key:
            config["account_key"] = account.key
        elif account.sas:
            config["sas_key"] = account.sas
        else:
            from obstore.auth.azure import AzureCredentialProvider

            provider = AzureCredentialProvider(_credential())
        options = bucket_options(account.endpoint, timeout_s, retries)
        return AzureStore(name, config=config, credential_provider=provider, **options)

    def client(self, *, timeout_s: float, retries: int) -> "AzureClient":
        """Open the store for keys that are no paths."""
        return AzureClient(Account.of_environment(), timeout_s, retries)

    def options(self) -> dict[str, str]:
        """Return where the store is, as the storage options of a LanceDB table."""
        account = Account.of_environment()
        options = {"account_name": account.name, "azure_endpoint": account.endpoint}
        options |= {"account_key": account.key} if account.key else {}
        options |= {"sas_key": account.sas} if account.sas else {}
        return options | {"allow_http": str(account.endpoint.startswith("http://")).lower()}


STORE = Azure()


class AzureClient:
    """A client that takes keys as they are; see `atlas_ray.io.stores.Client`."""

    def __init__(self, account: Account, timeout_s: float, retries: int) -> None:
        """Find the credentials; nothing is asked yet."""
        self._client = BlobServiceClient(
            account.endpoint,
            credential={"account_name": account.name, "account_key": account.key}
            if account.key
            else account.sas or _credential(),
            retry_policy=ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=retries),
            connection_timeout=min(CONNECT_S, timeout_s),
            read_timeout=timeout_s,
        )

    def keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the key and the size of each blob below a prefix."""
        with _explained():
            container = self._client.get_container_client(bucket)
            for blob in container.list_blobs(name_starts_with=prefix, include=["metadata"]):
                if (blob.metadata or {}).get("hdi_isfolder") != "true":
                    yield blob.name, int(blob.size)

    def read(self, bucket: str, key: str, admit: Callable[[int], None]) -> bytes:
        """Read a blob, if its size is admitted.

        Azure has no key with a part `.` or `..`, nor one with a backslash: it would read another blob, even one of
        another container.
        """
        if "\\" in key or {".", ".."} & set(key.split("/")):
            raise RequestError(f"Azure has no such key: {key[:200]!r}", 404)
        with _explained():
            blob = self._client.get_blob_client(bucket, key)
            admit(int(blob.get_blob_properties().size))
            return bytes(blob.download_blob().readall())


class _Files(fs.AzureFileSystem):  # type: ignore[misc]
    """Azure's filesystem, which cannot move a file in an account without a hierarchical namespace."""

    def move(self, src: str, dest: str) -> None:
        """Copy a file, and delete it."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the class."""
        return _opened, super().__reduce__()[1]


def _opened(options: dict[str, Any]) -> _Files:
    return _Files(**options)


@functools.cache
def _filesystem(account: Account) -> _Files:
    scheme, host = endpoint_parts(CONNECTION, account.endpoint)
    # Arrow puts the account before an authority that begins with a dot, and behind any other.
    authority = host.removeprefix(account.name) if host.startswith(f"{account.name}.") else host.partition("/")[0]
    options: dict[str, Any] = {
        "account_name": account.name,
        "blob_storage_authority": authority,
        "blob_storage_scheme": scheme,
        "dfs_storage_authority": authority.replace(".blob.", ".dfs.", 1),
        "dfs_storage_scheme": scheme,
    }
    options |= {"account_key": account.key} if account.key else {}
    options |= {"sas_token": f"?{account.sas}"} if account.sas else {}
    return _Files(**options)


@functools.cache
def _credential() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise the errors of the library as `RequestError`."""
    try:
        yield
    except HttpResponseError as error:
        name = getattr(error, "error_code", None)
        raise RequestError(error.message, error.status_code or 0, str(getattr(name, "value", name or ""))) from error
    except AzureError as error:
        raise RequestError(str(error)) from error
