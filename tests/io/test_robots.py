import codecs

import pytest

from atlas_ray.io.robots import MAX_ROBOTS_BYTES, robots_text

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


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("User-agent: atlas_ray/1.0", "User-agent: atlas_ray"),
        ("user-agent:\tshop-bot/2.1-beta # ours", "user-agent:\tshop-bot # ours"),
        ("Useragent : Atlas_Ray/0", "Useragent : Atlas_Ray"),
        ("Disallow: /user-agent: a/b", "Disallow: /user-agent: a/b"),
        ("User-agent: *", "User-agent: *"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_robot_is_named_without_its_version(line: str, found: str, end: str) -> None:
    text = f"# /robots{end}{line}{end}Disallow: /a/b{end}"
    assert robots_text(text.encode()) == text.replace(line, found)


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_rule_that_is_cut_is_none(end: str) -> None:
    content = (f"User-agent: *{end}" + f"Allow: /a{end}" * 60_000).encode()[:MAX_ROBOTS_BYTES]
    text = robots_text(content)
    assert text.endswith(end)
    assert set(text.split(end)) == {"User-agent: *", "Allow: /a", ""}
