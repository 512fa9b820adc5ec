"""Which objects a request may name."""

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from atlas_ray.errors import ItemError
from atlas_ray.io.storage import write_bytes
from atlas_ray.serving.memory import MemoryBudget, RequestBudget
from atlas_ray.serving.problems import Problem
from atlas_ray.serving.settings import ServeConfig
from atlas_ray.serving.sources import Sources
from tests.support.picture_server import PictureServer, jpeg


def plenty() -> RequestBudget:
    return RequestBudget(MemoryBudget(max_bytes=10**9, max_request_bytes=10**9))


def outcomes(uris: list[str], **settings: object) -> list[str]:
    config = ServeConfig.of({"model": "/m", "allow_anonymous": True, "fetch_timeout_s": 5, **settings}, "a test")
    found = asyncio.run(Sources(config).read(uris, plenty()))
    return [one.code if isinstance(one, ItemError) else f"{len(one)} bytes" for one in found]


def test_only_what_lies_in_a_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "pictures", tmp_path / "secrets"
    inside.mkdir()
    outside.mkdir()
    (inside / "1.jpg").write_bytes(b"abc")
    (outside / "key").write_bytes(b"secret")
    (tmp_path / "pictures-2").mkdir()
    (tmp_path / "pictures-2" / "key").write_bytes(b"secret")
    (inside / "link").symlink_to(outside)
    os.mkfifo(inside / "pipe")
    wanted = {
        f"{inside}/1.jpg": "3 bytes",
        f"file://{inside}/1.jpg": "3 bytes",
        f"{inside}/none.jpg": "not_found",
        f"{inside}/pipe": "unreadable",
        f"{inside}": "forbidden_uri",
        f"{inside}/": "forbidden_uri",
        f"{inside}/../secrets/key": "forbidden_uri",
        f"{inside}/%2e%2e/secrets/key": "forbidden_uri",
        f"{inside}/..\\secrets\\key": "forbidden_uri",
        f"{inside}/link/key": "forbidden_uri",
        f"{tmp_path}/pictures-2/key": "forbidden_uri",
        "pictures/1.jpg": "forbidden_uri",
        "/etc/passwd": "forbidden_uri",
        "file:///etc/passwd": "forbidden_uri",
        "s3://shop/1.jpg": "forbidden_uri",
        "ftp://shop/1.jpg": "forbidden_uri",
        f"{inside}/1.jpg\0.png": "forbidden_uri",
        "": "forbidden_uri",
        "x" * 5000: "forbidden_uri",
        "http://127.0.0.1/1.jpg": "forbidden_uri",
    }
    assert dict(zip(wanted, outcomes(list(wanted), image_prefixes=str(inside)), strict=True)) == wanted
    assert set(outcomes(list(wanted))) == {"forbidden_uri"}


def test_keys_of_a_bucket(s3: str) -> None:
    write_bytes(f"{s3}/serving/pictures/1.jpg", b"abc")
    write_bytes(f"{s3}/serving/secret", b"secret")
    wanted = {
        f"{s3}/serving/pictures/1.jpg": "3 bytes",
        f"{s3}/serving/pictures/2.jpg": "not_found",
        f"{s3}/serving/pictures/": "forbidden_uri",
        f"{s3}/serving/pictures/../secret": "forbidden_uri",
        f"{s3}/serving/pictures/%2E%2E/secret": "forbidden_uri",
        f"{s3}/serving/secret": "forbidden_uri",
        f"{s3}-2/serving/pictures/1.jpg": "forbidden_uri",
    }
    prefixes = f"/nowhere, {s3}/serving/pictures"
    assert dict(zip(wanted, outcomes(list(wanted), image_prefixes=prefixes), strict=True)) == wanted


def test_addresses_of_the_public_internet_alone() -> None:
    with PictureServer() as allowed, PictureServer() as other:
        wanted = {
            f"{allowed.url}/ok/7.jpg": f"{len(jpeg(7))} bytes",
            f"{allowed.url}/to/{quote('http://169.254.169.254/latest/meta-data/')}": "forbidden_address",
            f"{allowed.url}/to/{quote(other.url + '/ok/1.jpg')}": "forbidden_address",
            f"{allowed.url}/flood/": "too_large",
            f"{other.url}/ok/1.jpg": "forbidden_address",
            "http://10.0.0.1/1.jpg": "forbidden_address",
        }
        settings = {"http_images": True, "allow_private": allowed.place, "max_picture_mib": 1.0}
        assert dict(zip(wanted, outcomes(list(wanted), **settings), strict=True)) == wanted
        assert not other.asked
        before = sum(allowed.asked.values())
        assert outcomes([f"{allowed.url}/ok/7.jpg"], allow_private=allowed.place) == ["forbidden_uri"]
        assert sum(allowed.asked.values()) == before


@pytest.mark.parametrize("uri", ["s3://shop", "s3://shop/"])
def test_a_whole_bucket_may_be_a_folder(s3: str, uri: str) -> None:
    write_bytes(f"{s3}/serving/pictures/1.jpg", b"abc")
    assert outcomes([f"{s3}/serving/pictures/1.jpg"], image_prefixes=uri) == ["3 bytes"]


def test_what_a_request_names_counts_as_its_bytes(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(1000))
    with PictureServer() as shop:
        settings = {"image_prefixes": str(tmp_path), "http_images": True, "allow_private": shop.place}
        config = ServeConfig.of({"model": "/m", "allow_anonymous": True, **settings}, "a test")
        sources = Sources(config)
        own = [f"{tmp_path}/{number}.jpg" for number in range(3)]
        far = [f"{shop.url}/ok/{number}.jpg" for number in range(3)]
        length = len(jpeg(0))

        def refused(uris: list[str], **limits: int) -> int:
            budget = RequestBudget(MemoryBudget(**limits))
            with pytest.raises(Problem) as problem:
                asyncio.run(sources.read(uris, budget))
            return problem.value.status

        assert refused(own, max_bytes=10_000, max_request_bytes=2999) == 413
        assert refused(own, max_bytes=2999, max_request_bytes=2999) == 413
        assert refused(own, max_bytes=2999, max_request_bytes=10_000) == 429
        assert refused(far, max_bytes=10**6, max_request_bytes=3 * length - 100) == 413
        memory = MemoryBudget(max_bytes=3000, max_request_bytes=3000)
        for _ in range(2):
            budget = RequestBudget(memory)
            assert [len(found) for found in asyncio.run(sources.read(own, budget)) if isinstance(found, bytes)] == [
                1000, 1000, 1000,
            ]  # fmt: skip
            budget.close()  # what was held is free again
        with pytest.raises(Problem, match="busy"):  # a read that comes after the end holds nothing
            budget.reserve(1)
        # What comes to nothing is given back: pictures without an end do not cost the others their place.
        small = Sources(
            ServeConfig.of({**settings, "model": "/m", "allow_anonymous": True, "max_picture_mib": 0.1}, "a test")
        )
        budget = RequestBudget(MemoryBudget(max_bytes=300_000, max_request_bytes=300_000))
        endless = [f"{shop.url}/flood/{number}" for number in range(8)]
        *bad, good = asyncio.run(small.read([*endless[:1], own[0]], budget))
        assert [one.code for one in bad if isinstance(one, ItemError)] == ["too_large"]
        assert good == bytes(1000)
        for uri in endless[1:]:
            (found,) = asyncio.run(small.read([uri], budget))
            assert isinstance(found, ItemError)


@pytest.mark.long
def test_a_slow_host_takes_no_time_of_others() -> None:
    with PictureServer() as slow, PictureServer() as quick:
        allowed = f"{slow.place},{quick.place}"
        settings = {"http_images": True, "allow_private": allowed, "fetch_timeout_s": 4.0}
        config = ServeConfig.of({"model": "/m", "allow_anonymous": True, **settings}, "a test")
        sources = Sources(config)

        async def both() -> tuple[list[bytes | ItemError], list[bytes | ItemError], float]:
            hanging = asyncio.create_task(sources.read([f"{slow.url}/hang/{n}" for n in range(100)], plenty()))
            await asyncio.sleep(0.2)
            started = time.monotonic()
            good = await sources.read([f"{quick.url}/ok/{number}.jpg" for number in range(20)], plenty())
            return good, await hanging, time.monotonic() - started

        good, hanging, seconds = asyncio.run(both())
        assert all(isinstance(found, bytes) for found in good)
        assert {found.code for found in hanging if isinstance(found, ItemError)} == {"timeout"}
        assert seconds < 8  # one time limit for all that a request names


@pytest.mark.long
def test_a_host_that_never_answers_is_left_alone() -> None:
    with PictureServer() as slow:
        settings = {"http_images": True, "allow_private": slow.place, "fetch_timeout_s": 1.5}
        sources = Sources(ServeConfig.of({"model": "/m", "allow_anonymous": True, **settings}, "a test"))
        codes = []
        for number in range(6):
            (found,) = asyncio.run(sources.read([f"{slow.url}/hang/{number}"], plenty()))
            assert isinstance(found, ItemError)
            codes.append(found.code)
        assert codes == ["timeout"] * 5 + ["unreachable"]
