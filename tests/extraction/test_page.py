import pytest

from atlas_ray.extraction.page import MAX_BYTES, Page, clean, join_url


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


@pytest.mark.parametrize(
    ("words", "encoding", "country"),
    [
        ("Größe wählen", "cp1252", "de"),
        ("Chaussures d'été à lacets pour garçon", "cp1252", "com"),
        ("Мышь беспроводная", "cp1251", "example"),
        ("Купить кроссовки мужские недорого", "koi8-r", "ru"),
        ("Dámské boty s podpatkem, černé šaty žluté", "cp1250", "cz"),
        ("レディース スニーカー 白 送料無料", "shift_jis", "jp"),
        ("レディース スニーカー 白 送料無料", "euc_jp", "example"),
        ("女士运动鞋 白色 包邮", "gb18030", "cn"),
        ("女士運動鞋 白色 免運費", "big5", "tw"),
        ("여성 운동화 무료 배송", "euc_kr", "kr"),
        ("Γυναικεία παπούτσια", "cp1253", "gr"),
        ("Kadın ayakkabı, siyah, şık ürün", "cp1254", "tr"),
        ("נעלי נשים הוספה לסל", "cp1255", "il"),
        ("أحذية نسائية أضف إلى السلة", "cp1256", "example"),
    ],
)
def test_a_page_that_declares_no_encoding(words: str, encoding: str, country: str) -> None:
    body = f"<html><head><title>{words}</title></head><body><h1>{words}</h1><p>12 cm</p></body></html>"
    page = Page(f"https://shop.{country}/p/1", body.encode(encoding), "text/html")
    assert page.titles == (words, words)


def test_one_broken_byte_does_not_make_utf8_another_encoding() -> None:
    body = "<h1>Größe für Füße</h1>".encode() * 5 + b"<p>\xe4</p>"
    assert Page("https://shop.de/p", body, "text/html").titles[0] == "Größe für Füße"


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ('Executive Anvil <span class="sr-only">(opens in a new window)</span>', "Executive Anvil"),
        ('<span class="visually-hidden">Product: </span>Executive Anvil', "Executive Anvil"),
        ('Executive <b class="screen-reader-text">name</b>Anvil<i style="display: none">4711</i>', "Executive Anvil"),
        ("Executive Anvil <b hidden>new</b><svg><title>Heart</title></svg>", "Executive Anvil"),
        ('<span class="hidden md:inline">Executive</span> Anvil', "Executive Anvil"),
        ("\ue001Executive\u200b Anvil\uf0a9", "Executive Anvil"),
        ("\u202aExecutive\ue123Anvil\u202c\ufeff", "Executive Anvil"),
        ("Exe\u00adcutive\u200e An\u200dvil\u2060", "Executive Anvil"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # spelled with it
        ("👩\u200d💻", "👩\u200d💻"),
        ('<span class="sr-only">Executive Anvil</span>', "Executive Anvil"),  # nothing else is there
    ],
)
def test_a_title_is_what_readers_see(heading: str, title: str) -> None:
    assert Page("", f"<h1>{heading}</h1>".encode()).titles == (title,)


@pytest.mark.parametrize(
    "kind", ["text/xml", "application/force-download", "*/*", "application/x-httpd-php", "image/jpeg"]
)
@pytest.mark.parametrize(
    "begin", ["<!DOCTYPE html>", "\ufeff\n <HTML lang=de>", "<?xml version='1.0'?><!-- a > b --><html>"]
)
def test_the_bytes_tell_a_page_whatever_the_server_calls_it(kind: str, begin: str) -> None:
    assert Page("", f"{begin}<title>A</title>".encode(), kind).is_html


@pytest.mark.parametrize(
    "text", ["<rss><html>", "<svg>", '{"a": "<html>"}', "<?xml version='1.0'?><urlset>", "\x89PNG<html>"]
)
def test_what_begins_otherwise_is_what_the_server_calls_it(text: str) -> None:
    assert not Page("", text.encode(), "application/xml").is_html
