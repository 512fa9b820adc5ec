"""The line before a gateway's threads that decode."""

import asyncio
import threading
import time

import numpy as np
import pytest

from atlas_ray.errors import PictureError
from atlas_ray.picture_limits import PictureLimits
from atlas_ray.serving.decoder import Decoder
from atlas_ray.serving.problems import Problem
from tests.parts import picture


def test_pictures_are_decoded_and_bad_ones_said() -> None:
    async def run() -> None:
        decoder = Decoder(PictureLimits(), patience_s=1)
        good, bad = await asyncio.gather(
            decoder.decode(picture(1), 32, time.monotonic() + 5), decoder.decode(b"junk", 32, time.monotonic() + 5)
        )
        assert isinstance(good, np.ndarray)
        assert good.shape == (3, 32, 32)
        assert isinstance(bad, PictureError)
        assert bad.code == "not_an_image"

    asyncio.run(run())


def test_who_would_wait_too_long_is_refused() -> None:
    async def run() -> None:
        decoder = Decoder(PictureLimits(), threads=1, patience_s=0.1)
        held = threading.Event()
        busy = asyncio.create_task(decoder.run(held.wait))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(decoder.decode(picture(1), 32, time.monotonic() + 0.2))
        left = asyncio.create_task(decoder.decode(picture(1), 32, time.monotonic() + 60))
        patient = asyncio.create_task(decoder.decode(picture(1), 32, time.monotonic() + 60))
        await asyncio.sleep(0.05)
        decoder.check_room()
        assert len(decoder) == 3
        await asyncio.sleep(0.2)
        with pytest.raises(Problem, match="busy"):
            decoder.check_room()
        left.cancel()
        await asyncio.sleep(0)
        assert len(decoder) == 2
        held.set()
        await busy
        with pytest.raises(Problem, match="busy"):
            await late
        assert isinstance(await patient, np.ndarray)
        decoder.check_room()
        assert len(decoder) == 0

    asyncio.run(run())
