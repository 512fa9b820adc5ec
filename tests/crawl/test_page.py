import pytest

from atlas_ray.crawl.page import MAX_BYTES, Page, clean, join_url


@pytest.mark.parametrize(
    ("body", "header", "text"),
    [
        ("Größe".encode(), "", "Größe"),
        ("Größe".encode(), "text/html; charset=iso-8859-1", "Größe"),  # the bytes are UTF-8
        ("Größe".encode("cp1252"), "text/html; charset=utf-8", "Größe"),  # the header is wrong
        (b'<meta charset="iso-8859-2">' + "Žluť".encode("iso-8859-2"), "", '<meta charset="iso-8859-2">Žluť'),
        ("Мышь".encode("cp1251"), "text/html; charset=windows-1251", "Мышь"),
        ("首頁 €".encode("big5", "ignore"), "text/html; charset=big5", "首頁 "),
        ("\ufeffGröße".encode("utf-16"), "text/html; charset=utf-8", "Größe"),
        ("Größe ".encode() * 20 + b"\xff", "text/html; charset=utf-8", "Größe " * 20 + "\ufffd"),
        (b"a\0b", "", "ab"),
    ],
)
def test_text_survives_its_encoding(body: bytes, header: str, text: str) -> None:
    assert Page("", body, header).text.strip("\ufeff ") == text.strip()


def test_a_huge_body_is_cut_between_characters() -> None:
    page = Page("", b"<p>" + "ö".encode() * MAX_BYTES)
    assert len(page.text) == 3 + (MAX_BYTES - 3) // 2
    assert set(page.text[3:]) == {"ö"}


def test_addresses_of_a_page() -> None:
    links = b'<base href="/shop/"><link rel=canonical href="shoe#top"><meta name=og:url content="//evil.example/x">'
    page = Page("https://www.shop.example/p?id=1&utm=2#a", links)
    assert page.addresses == ("https://www.shop.example/shop/shoe", "https://www.shop.example/p?id=1&utm=2")
    assert page.absolute("../a b.jpg#x") == "https://www.shop.example/a b.jpg"
    to_front = Page("https://shop.example/shoe", b'<link rel="canonical" href="https://shop.example/">')
    assert to_front.addresses == ("https://shop.example/shoe",)


@pytest.mark.parametrize(
    "address", ["javascript:x()", "data:image/png;base64,AA", "http://[", "http://a:99999/", "http://", "mailto:a@b"]
)
def test_what_is_no_address(address: str) -> None:
    assert join_url("https://shop.example/", address) is None


def test_clean_leaves_what_can_be_stored() -> None:
    assert clean(" a\n\t b\ud83d\x07 ") == "a b"
