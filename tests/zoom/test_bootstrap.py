import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from atlas_ray.errors import PictureError
from atlas_ray.modalities.pictures import decode
from atlas_ray.zoom.bootstrap import bootstrap_example, close_up


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def product(rng: np.random.Generator, background: int = 255) -> NDArray[np.uint8]:
    """A textured square in the middle of a flat background."""
    picture = np.full((240, 240, 3), background, np.uint8)
    picture[70:170, 70:170] = rng.integers(40, 120, (100, 100, 3))
    return picture


@pytest.mark.parametrize("background", [255, 0])
def test_a_close_up_lies_on_the_product(background: int) -> None:
    rng = np.random.default_rng(0)
    pixels = decode(encoded(product(rng, background)), 600).pixels
    found = [close_up(pixels, scale, rng) for scale in (0.15, 0.3, 0.4)]
    for box in found:
        assert box is not None
        top, left, side = box
        rows, columns = (max(min(first + side, 425) - max(first, 175), 0) for first in (top, left))
        assert rows * columns / side**2 > 0.58
    assert [box[2] / 600 for box in found if box] == pytest.approx([0.15, 0.3, 0.4], abs=0.01)


@pytest.mark.parametrize("picture", [np.full((90, 60, 3), 200, np.uint8), np.zeros((11, 9, 3), np.uint8)])
def test_where_nothing_is_to_be_seen_a_picture_stays_normal(picture: NDArray[np.uint8]) -> None:
    example, zoomed = bootstrap_example(encoded(picture), zoomed=True, size_px=32, rng=np.random.default_rng(0))
    assert not zoomed
    assert example.shape == (3, 32, 32)
    assert example.float().std() < 2


def test_it_is_repeatable_and_shows_less() -> None:
    data = encoded(product(np.random.default_rng(0)))
    one, again, other = (
        bootstrap_example(data, zoomed=True, size_px=64, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    whole, _ = bootstrap_example(data, zoomed=False, size_px=64, rng=np.random.default_rng(1))
    assert one[1]
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    assert (whole > 240).float().mean() > 0.5  # the background
    assert (one[0] > 240).float().mean() < 0.45


def test_a_broken_picture_is_refused() -> None:
    with pytest.raises(PictureError, match="not_an_image"):
        bootstrap_example(b"no picture", zoomed=True, size_px=32, rng=np.random.default_rng(0))


def scale_free(rng: np.random.Generator, side: int = 224) -> NDArray[np.uint8]:
    """Noise that looks alike at every scale, its details as strong as its outlines, on a white background."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / frequency, (side, side))
    picture = np.full((side, side, 3), 255, np.uint8)
    inner = slice(12, -12)
    picture[inner, inner] = (100 + 40 * noise / noise.std()).clip(0, 220).astype(np.uint8)[inner, inner, None]
    return picture


def sharpness(picture: torch.Tensor) -> float:
    """How strong the details in the middle of a picture are."""
    grey = picture[0, 35:-35, 35:-35].float()
    return float((grey.diff(dim=0).var() + grey.diff(dim=1).var()) / grey.var())


def separation(above: list[float], below: list[float]) -> float:
    """The probability that one of the first is larger than one of the second; 0.5 where they are alike."""
    return float((np.array(above)[:, None] > np.array(below)[None]).mean())


@pytest.mark.long
def test_sharpness_does_not_tell_a_close_up() -> None:
    rng = np.random.default_rng(0)
    whole: list[float] = []
    cut: list[float] = []
    naive: list[float] = []
    for number in range(40):
        picture = scale_free(rng)
        example, zoomed = bootstrap_example(
            encoded(picture), zoomed=number % 2 == 0, size_px=150, rng=np.random.default_rng(number)
        )
        (cut if zoomed else whole).append(sharpness(example))
        naive.append(sharpness(decode(encoded(picture), 150).pixels))
    assert len(cut) == 20
    assert separation(naive, cut) > 0.95  # a whole picture as it is would be given away
    assert 0.25 < separation(whole, cut) < 0.75
