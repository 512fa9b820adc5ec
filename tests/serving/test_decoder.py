"""The line before a gateway's threads that decode."""

import asyncio
import sys
import threading
import time

import numpy as np
import pytest

from atlas_ray.errors import PictureError
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode
from atlas_ray.serving.decoder import Decoder
from atlas_ray.serving.problems import Problem
from tests.support.parts import picture


def test_pictures_are_decoded_and_bad_ones_said() -> None:
    async def run() -> None:
        decoder = Decoder(PictureLimits(), patience_s=1)
        good, bad = await decoder.decode([picture(1), b"junk"], 32, time.monotonic() + 5)
        assert isinstance(good, np.ndarray)
        assert good.shape == (3, 32, 32)
        assert isinstance(bad, PictureError)
        assert bad.code == "not_an_image"
        assert await decoder.decode([], 32, 0.0) == []
        assert decoder.waiting == 0

    asyncio.run(run())


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let no picture be decoded until this is set."""
    event = threading.Event()

    def slow(*arguments: object) -> object:
        event.wait(30)
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("atlas_ray.serving.decoder.decode", slow)
    return event


@pytest.mark.long
def test_who_would_wait_too_long_is_refused(held: threading.Event) -> None:
    async def run() -> None:
        decoder = Decoder(PictureLimits(), threads=1, patience_s=0.6)

        def ask(within_s: float) -> "asyncio.Task[list[object]]":
            return asyncio.create_task(decoder.decode([picture(1)] * 2, 32, time.monotonic() + within_s))  # type: ignore[arg-type]

        # The first one's own pictures take longer than it may wait for its turn, which has come.
        first, late, left, patient = ask(0.8), ask(0.8), ask(60), ask(60)
        await asyncio.sleep(0.05)
        decoder.check_room()
        assert decoder.waiting == 8
        await asyncio.sleep(1.0)
        with pytest.raises(Problem, match="busy"):
            decoder.check_room()
        left.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert decoder.waiting == 6
        held.set()
        assert len(await first) == 2
        with pytest.raises(Problem, match="busy"):
            await late
        assert len(await patient) == 2
        decoder.check_room()
        assert decoder.waiting == 0

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_held(held: threading.Event) -> None:
    async def run() -> None:
        decoder = Decoder(PictureLimits(), threads=1, patience_s=60)
        content = bytearray(1_000_000)  # what the threads have in line is found by its references
        busy = asyncio.create_task(decoder.decode([picture(1)], 32, time.monotonic() + 60))
        await asyncio.sleep(0.05)
        before = sys.getrefcount(content)
        contents = [content] * 5
        gone = asyncio.create_task(decoder.decode(contents, 32, time.monotonic() + 60))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert sys.getrefcount(content) >= before + 5
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        contents.clear()
        assert sys.getrefcount(content) <= before + 1
        held.set()
        await busy

    asyncio.run(run())
