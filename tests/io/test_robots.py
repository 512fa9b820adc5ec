import codecs

import pytest

from atlas_ray.io.robots import robots_text

TEXT = "User-agent: *\nDisallow: /caf\u00e9\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_a_byte_order_mark_tells_the_encoding(content: bytes) -> None:
    assert robots_text(content) == TEXT


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert robots_text(b"Disallow: /\xff") == "Disallow: /\ufffd"
    assert robots_text(codecs.BOM_UTF16_LE + b"a\0b") == "a\ufffd"
