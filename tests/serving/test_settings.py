from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve import Application
from ray.serve.config import HTTPOptions

from atlas_ray.errors import ConfigError
from atlas_ray.serving import app
from atlas_ray.serving.settings import ServeConfig, is_loopback

LINE = "anna:" + "0" * 64


def test_models_have_names() -> None:
    def models(text: str) -> dict[str, str]:
        return ServeConfig(model=text, tokens=LINE).models()

    assert models("s3://shop/model") == {"default": "s3://shop/model"}
    assert models("/m/a=b") == {"default": "/m/a=b"}
    assert models("fashion=s3://shop/a, home=/b") == {"fashion": "s3://shop/a", "home": "/b"}
    assert list(models("z=/z,a=/a")) == ["z", "a"]
    for text, reason in (
        ("", "expected an artifact"),
        ("A B=/m", "model name 'A B'"),
        ("a=/x,a=/y", "model 'a' is given twice: /x and /y"),
        ("/x,/y", "model 'default' is given twice"),
    ):
        with pytest.raises(ConfigError, match=reason):
            models(text)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "nobody could ask"),
        ({"allow_anonymous": True, "host": "0.0.0.0"}, "anyone on the network could ask"),
        ({"allow_anonymous": True, "host": "gateway.example"}, "anyone on the network could ask"),
        ({"tokens": LINE, "min_replicas": 3}, "min_replicas is 3, and max_replicas 1"),
        ({"tokens": LINE, "min_gateways": 2}, "min_gateways is 2, and gateways 1"),
        ({"tokens": LINE, "max_body_mib": 600}, "max_body_mib is 600, and max_held_mib 512"),
        ({"tokens": LINE, "modell": "x"}, "no field 'modell'; did you mean 'model'"),
        ({"tokens": LINE, "batch_size": 0}, "batch_size is 0; expected 1 to 8192"),
        ({"tokens": LINE, "allow_private": "http://x/"}, "names no private place"),
        ({"tokens": LINE, "max_pictures": 0}, "max_pictures is 0"),
        ({"tokens": LINE, "batch_size": 1, "max_queued_requests": 32}, "64 in batches of 1 are 64 calls"),
        ({"tokens": LINE, "image_prefixes": "/a, ftp://b"}, "image_prefixes has 'ftp://b'"),
        ({"tokens": LINE, "cors_origins": "https://a.example/shop"}, "cors_origins has 'https://a.example/shop'"),
        ({"tokens": LINE, "cors_origins": "a.example"}, "cors_origins has 'a.example'"),
        ({"tokens": LINE, "root_path": "atlas/"}, "root_path is 'atlas/'"),
        ({"tokens": LINE, "image_prefixes": "/"}, "image_prefixes has '/'"),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ServeConfig.of({"model": "/m", **values}, "serve.yaml")


def test_a_batch_is_as_large_as_suits_the_device() -> None:
    for values, wanted in (
        ({}, 32),
        ({"model_gpus": 0.5}, 256),
        ({"device": "cuda"}, 256),
        ({"model_gpus": 1, "device": "cpu"}, 32),
        ({"model_gpus": 1, "batch_size": 16}, 16),
    ):
        assert ServeConfig.of({"model": "/m", "tokens": LINE, **values}, "x").batch_size == wanted


def test_settings_survive_yaml() -> None:
    config = ServeConfig.of({"model": "/m", "tokens": LINE, "batch_size": 8, "top_k": 3, "max_body_mib": 1}, "x")
    assert config.predictor.batch_size == 8
    assert ServeConfig.of(config.to_dict(), "x") == config


def test_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "::", "example.com", "")))


def test_paths_are_made_absolute_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"model": "a=m,b=s3://shop/m", "tokens_file": "tokens", "image_prefixes": "pictures,s3://shop/p"}
    config = ServeConfig.of(values, "x").absolute()
    assert config.models() == {"a": f"{tmp_path}/m", "b": "s3://shop/m"}
    assert config.tokens_file == f"{tmp_path}/tokens"
    assert config.prefixes() == [f"{tmp_path}/pictures", "s3://shop/p"]
    assert config.absolute() == config


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "127.0.0.1"])
def test_without_tokens_serve_itself_has_to_listen_on_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(http_config=HTTPOptions(host=host))
    monkeypatch.setattr(app, "running_serve", lambda: client)
    args = {"model": "/m", "allow_anonymous": True}
    if host == "127.0.0.1":
        assert isinstance(app.build(args), Application)
    else:
        with pytest.raises(ConfigError, match=f"Serve listens on '{host}'"):
            app.build(args)
    assert isinstance(app.build({"model": "/m", "tokens": LINE}), Application)
