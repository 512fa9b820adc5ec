"""The settings of the endpoint."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from atlas_ray.errors import ConfigError
from atlas_ray.io import storage, stores
from atlas_ray.io.addresses import AddressRule
from atlas_ray.prediction.feeding import FEEDING
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.settings import Settings, build_settings, setting

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
DEFAULT_MODEL = "default"
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Settings):
    """What is served, to whom, and how much of it."""

    model: str = setting(
        "artifact, or NAME=ARTIFACT for each of several; requests without a name go to the first", several=True
    )
    image_prefixes: str = setting("folders that image_uri may point into; none by default", "", several=True)
    http_images: bool = setting("allow public http(s) addresses as image_uri", False)
    allow_private: str = setting("private HOST:PORT that http(s) addresses may have", "", several=True)
    tokens: str = setting("NAME:SHA256 of each token that may be used", "", several=True)
    tokens_file: str = setting("local file with a line NAME:SHA256 for each token; read again when it changes", "")
    allow_anonymous: bool = setting("allow requests without a token; only on a loopback host", False)
    cors_origins: str = setting("origins whose pages may ask with a token, such as https://shop.example; * for any", "", several=True)  # fmt: skip # noqa: E501
    root_path: str = setting("path below which a reverse proxy shows the endpoint, such as /atlas, if it takes it off", "")  # fmt: skip # noqa: E501
    requests_per_s: float = setting("rate limit of each token in requests per second; 0: none", 0.0, low=0, high=1e6)
    requests_at_once: int = setting(
        "most requests of each token that run at a time; 0: no limit", 0, low=0, high=1_000_000
    )
    burst: int = setting("most requests of a token in a burst, within its rate limit", 20, low=1, high=1_000_000)
    max_pictures: int = setting("most pictures in a request", 64, low=1, high=10_000)
    max_picture_mib: float = setting("largest picture in MiB", 32.0, low=0.001, high=1024)
    max_megapixels: float = setting("largest picture in millions of pixels", 25.0, low=0.001, high=64)
    max_body_mib: float = setting("largest request in MiB, with the objects that it names", 64.0, low=0.001, high=4096)
    max_held_mib: float = setting("memory for the requests of a gateway in MiB; above it they get 429", 512.0, low=0.001, high=1_000_000)  # fmt: skip # noqa: E501
    request_timeout_s: float = setting("timeout of a request in seconds, with its body", 30.0, low=0.1, high=3600)
    fetch_timeout_s: float = setting("timeout of fetching a request's objects in seconds", 10.0, low=0.1, high=600)
    batch_wait_ms: float = setting("milliseconds that an idle model waits for a batch to fill", 5.0, low=0, high=10_000)  # fmt: skip # noqa: E501
    min_replicas: int = setting("fewest replicas of each model; 0: none while there are no requests", 1, low=0, high=10_000)  # fmt: skip # noqa: E501
    max_replicas: int = setting("most replicas of each model", 1, low=1, high=10_000)
    min_gateways: int = setting("fewest replicas that take requests, fetch and decode", 1, low=1, high=10_000)  # fmt: skip # noqa: E501
    gateways: int = setting("most replicas that take requests; at least min_gateways", 1, low=1, high=10_000)
    max_queued_requests: int = setting("most requests that wait in a gateway for a model; more get 429", 64, low=1, high=1_000_000)  # fmt: skip # noqa: E501
    model_cpus: float = setting("CPUs that a replica of a model reserves", 1.0, low=0, high=1024)
    model_gpus: float = setting("GPUs that a replica of a model reserves, such as 0.5", 0.0, low=0, high=64)
    drain_s: float = setting("seconds that running requests get when a replica is stopped", 60.0, low=1, high=3600)
    host: str = setting("address to listen on", "127.0.0.1")
    port: int = setting("port to listen on", 8000, low=1, high=65535)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)

    def __post_init__(self) -> None:
        """Refuse values out of range, and an endpoint that is open to strangers."""
        super().__post_init__()
        self.models()
        self.address_rule()
        self.origins()
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            raise ConfigError(f"root_path is {self.root_path!r}; expected a path such as /atlas, without / at its end")
        for prefix in self.prefixes():
            if stores.is_object(prefix):
                stores.split_folder(prefix)
            elif ("://" in prefix and not prefix.startswith("file://")) or prefix.strip("/") == "":
                raise ConfigError(f"image_prefixes has {prefix!r}; expected folders: {stores.EXPECTED}")
        calls = -(-self.max_pictures // self.batch_size)
        if calls > self.max_queued_requests:
            raise ConfigError(
                f"max_pictures {self.max_pictures} in batches of {self.batch_size} are {calls} calls, "
                f"which never fit in max_queued_requests {self.max_queued_requests}"
            )
        for least, most in (
            ("min_replicas", "max_replicas"),
            ("min_gateways", "gateways"),
            ("max_body_mib", "max_held_mib"),
        ):
            if getattr(self, least) > getattr(self, most):
                raise ConfigError(f"{least} is {getattr(self, least):g}, and {most} {getattr(self, most):g}")
        if self.allow_anonymous and not is_loopback(self.host):
            raise ConfigError(
                f"allow_anonymous with the host {self.host!r}: anyone on the network could ask; use tokens_file"
            )
        if not (self.allow_anonymous or self.tokens or self.tokens_file):
            raise ConfigError(
                "nobody could ask: name a file of tokens with tokens_file (`atlas-ray token NAME` makes a token), "
                "or on this machine alone let anyone ask with allow_anonymous"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str) -> Self:
        """Make settings from named values, those of the predictor among them.

        Raises:
            ConfigError: naming a field that is unknown, missing or out of range.
        """
        names = PredictorConfig.__dataclass_fields__
        predictor = build_settings(PredictorConfig, {k: v for k, v in values.items() if k in names}, source)
        own = build_settings(cls, {k: v for k, v in values.items() if k not in names}, source)
        return cls(**{**vars(own), "predictor": predictor})

    @property
    def batch_size(self) -> int:
        """Products that go through a model together."""
        device = self.predictor.device
        on_gpu = self.model_gpus > 0 if device == "auto" else device != "cpu"
        return self.predictor.batch_size or FEEDING["cuda" if on_gpu else "cpu"].batch_size

    def models(self) -> dict[str, str]:
        """Return the artifacts by name, in order; one without a name is `default`.

        Raises:
            ConfigError: for an invalid name, or one that is given twice.
        """
        models: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in self.model.split(","))):
            name, separator, uri = part.partition("=")
            name, uri = (name, uri) if separator and "/" not in name else (DEFAULT_MODEL, part)
            if not MODEL_NAME.fullmatch(name):
                raise ConfigError(f"model name {name!r}; expected lower-case letters, digits, - and _, at most 63")
            if name in models:
                raise ConfigError(f"model {name!r} is given twice: {models[name]} and {uri}; give each NAME=ARTIFACT")
            models[name] = uri
        if not models:
            raise ConfigError(f"model is {self.model!r}; expected an artifact")
        return models

    def absolute(self) -> Self:
        """Return these settings with absolute paths, for processes in other folders."""
        models = ",".join(f"{name}={storage.absolute(uri)}" for name, uri in self.models().items())
        prefixes = ",".join(storage.absolute(prefix) for prefix in self.prefixes())
        tokens = os.path.abspath(self.tokens_file) if self.tokens_file else ""
        return replace(self, model=models, image_prefixes=prefixes, tokens_file=tokens)

    def prefixes(self) -> list[str]:
        """Return the folders that image_uri may point into."""
        return [part.strip() for part in self.image_prefixes.split(",") if part.strip()]

    def origins(self) -> list[str]:
        """Return the origins whose pages may ask.

        Raises:
            ConfigError: for one that is no origin.
        """
        origins = [part.strip() for part in self.cors_origins.split(",") if part.strip()]
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"cors_origins has {origin!r}; expected scheme, host and port as a browser sends them, such as "
                    "https://shop.example or http://localhost:3000, without a path"
                )
        return origins

    def address_rule(self) -> AddressRule:
        """Return the rule for http(s) addresses that may be read.

        Raises:
            ConfigError: for an invalid HOST:PORT.
        """
        return AddressRule.parse(self.allow_private)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values of YAML, as `of` takes them."""
        values = asdict(self)
        predictor = values.pop("predictor")
        return {**values, **predictor}


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
