"""Amazon S3, and services that are compatible with it: `s3://bucket/key`.

`AWS_ENDPOINT_URL` names a compatible service, `AWS_REGION` a region. Credentials come from the usual AWS chain; if it
finds none, requests are not signed.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store
from pyarrow import fs

from atlas_ray.io.stores import CONNECT_S, RequestError, bucket_options, endpoint_parts

if TYPE_CHECKING:
    from obstore.store import S3Config


class S3:
    """The store of `s3://`; see `atlas_ray.io.stores.Store`."""

    def filesystem(self) -> fs.FileSystem:
        """Open the store for tables and documents."""
        return _filesystem(_endpoint(), _region())

    def bucket(self, name: str, *, timeout_s: float, retries: int) -> S3Store:
        """Open a bucket for many objects."""
        session = boto3.Session()
        signed = session.get_credentials() is not None
        config: S3Config = {"virtual_hosted_style_request": False, "skip_signature": not signed}
        if endpoint := _endpoint():
            config["endpoint"] = endpoint
        if region := _region():
            config["region"] = region
        provider = Boto3CredentialProvider(session) if signed else None
        options = bucket_options(endpoint, timeout_s, retries)
        return S3Store(name, config=config, credential_provider=provider, **options)

    def client(self, *, timeout_s: float, retries: int) -> "S3Client":
        """Open the store for keys that are no paths."""
        return S3Client(timeout_s, retries)

    def options(self) -> dict[str, str]:
        """Return where the store is, as the storage options of a LanceDB table."""
        options = {"aws_region": _region()} if _region() else {}
        if endpoint := _endpoint():
            options |= {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
        return options


STORE = S3()


class S3Client:
    """A client that takes keys as they are; see `atlas_ray.io.stores.Client`."""

    def __init__(self, timeout_s: float, retries: int) -> None:
        """Find the credentials; nothing is asked yet."""
        session = boto3.Session()
        config = Config(
            connect_timeout=min(CONNECT_S, timeout_s),
            read_timeout=timeout_s,
            max_pool_connections=64,
            retries={"mode": "standard", "total_max_attempts": retries + 1},
            s3={"addressing_style": "path"},
            **({} if session.get_credentials() else {"signature_version": UNSIGNED}),
        )
        self._client: Any = session.client(
            "s3", endpoint_url=_endpoint() or None, region_name=_region() or None, config=config
        )

    def keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the key and the size of each object below a prefix."""
        with _explained():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield item["Key"], int(item["Size"])

    def read(self, bucket: str, key: str, admit: Callable[[int], None]) -> bytes:
        """Read an object, if its size is admitted."""
        with _explained():
            answer = self._client.get_object(Bucket=bucket, Key=key)
            with answer["Body"] as body:
                admit(int(answer["ContentLength"]))
                return bytes(body.read())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise the errors of the library as `RequestError`."""
    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise RequestError(str(error), status, str(error.response.get("Error", {}).get("Code", ""))) from error
    except BotoCoreError as error:
        raise RequestError(str(error)) from error


@functools.cache
def _filesystem(endpoint: str, region: str) -> fs.S3FileSystem:
    options: dict[str, object] = {
        "connect_timeout": CONNECT_S,
        "request_timeout": 60.0,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=10),
    }
    if endpoint:
        options["scheme"], options["endpoint_override"] = endpoint_parts("AWS_ENDPOINT_URL", endpoint)
    if region:
        options["region"] = region
    return fs.S3FileSystem(**options)


def _endpoint() -> str:
    """Return the endpoint of an S3-compatible service, or "" for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    """Return the region from the environment; behind an endpoint of its own any name will do."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return region or ("us-east-1" if _endpoint() else "")
