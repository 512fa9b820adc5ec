import json
import time
from typing import Any

import pytest

from atlas_ray.catalog.picture_names import picture_names, picture_uri, read_listed
from atlas_ray.errors import RowError

A, B = "https://cdn.shop.example/w_300,h_200/a.jpg?v=1;2|3", "https://cdn.shop.example/b"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a.jpg,b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg, b.PNG", ["a.jpg", "b.PNG"]),
        ("a.jpg b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg;b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg ; b.jpeg;", ["a.jpg", "b.jpeg"]),
        ("a.jpg|b.jpg", ["a.jpg", "b.jpg"]),
        ("photos/1|photos/2", ["photos/1", "photos/2"]),
        ("a.jpg\r\nb.jpg\n", ["a.jpg", "b.jpg"]),
        ("a.jpg, b.webp; c.avif|d.gif", ["a.jpg", "b.webp", "c.avif", "d.gif"]),
        ("a.jpg?x=1,b.jpg?x=2", ["a.jpg?x=1", "b.jpg?x=2"]),
        ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]),
        ("['a.jpg', 'b.jpg']", ["a.jpg", "b.jpg"]),
        ("[a.jpg, b.jpg]", ["a.jpg", "b.jpg"]),
        ('[{"src": "a.jpg", "alt": "x"}]', ["a.jpg"]),
        (f"{A},{B}", [A, B]),
        (f"{A} {B}", [A, B]),
        (f"{A}; {B}", [A, B]),
        (f"{A}|{B}", [A, B]),
        (f"{A}\n{B}\n", [A, B]),
        (f"{B},//cdn.example/c.jpg,s3://shop/d.jpg", [B, "//cdn.example/c.jpg", "s3://shop/d.jpg"]),
        (f"a.jpg,{B}", ["a.jpg", B]),
        (A, [A]),
        ("https://x.example/my photo, front.jpg", ["https://x.example/my photo, front.jpg"]),
        ("https://x.example/?list=a.jpg,b.jpg", ["https://x.example/?list=a.jpg,b.jpg"]),
        ("my photo, front.jpg", ["my photo, front.jpg"]),
        ("my photo, front.jpg, my photo, back.jpg", ["my photo, front.jpg", "my photo, back.jpg"]),
        ("IMG 01.jpg", ["IMG 01.jpg"]),
        ("a.jpg, and more", ["a.jpg, and more"]),
        ("Tom & Jerry; mug.png", ["Tom & Jerry; mug.png"]),
        (" a.jpg ", ["a.jpg"]),
        ("a.jpg 1x, b.jpg 2x", ["b.jpg"]),
        ("a.jpg, b.jpg 1.5x", ["b.jpg"]),
        (f"{A} 300w,{A}2 1200w, {A}3 600w", [f"{A}2"]),
        ("photo 1x.jpg", ["photo 1x.jpg"]),
        ("front 1x, back 2x", ["front 1x, back 2x"]),
        ('"a.jpg","b.jpg"', ["a.jpg", "b.jpg"]),
        ("'a, b.jpg', 'c.jpg'", ["a, b.jpg", "c.jpg"]),
        ('"a.jpg"', ["a.jpg"]),
        ("'70s.jpg", ["'70s.jpg"]),
        ("a.jpg & b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg and b.jpg + c.jpg", ["a.jpg", "b.jpg", "c.jpg"]),
        ("a.jpg - b.jpg", ["a.jpg - b.jpg"]),
        ("a.jpg (front).jpg", ["a.jpg (front).jpg"]),
        ("a.jpg<br>b.jpg<br />c.jpg", ["a.jpg", "b.jpg", "c.jpg"]),
        ("<p><img alt='x' src='https://x.example/a?b=1&amp;c=2'><img src=\"b.jpg\"/></p>",
         ["https://x.example/a?b=1&c=2", "b.jpg"]),
        ("a (1).jpg (https://x.example/1),b.jpg (https://x.example/2)", ["https://x.example/1", "https://x.example/2"]),
        ("https://x.example/a.jpg::https://x.example/b.jpg", ["https://x.example/a.jpg", "https://x.example/b.jpg"]),
        ("s3://shop/a.jpg?v=1~s3://shop/b.jpg", ["s3://shop/a.jpg?v=1", "s3://shop/b.jpg"]),
        ("https://x.example/f?url=https://y.example/a.jpg", ["https://x.example/f?url=https://y.example/a.jpg"]),
        ("https://x.example/a.jpg/https://y.example/b.jpg", ["https://x.example/a.jpg/https://y.example/b.jpg"]),
        (["a.jpg,b.jpg"], ["a.jpg", "b.jpg"]),
        ([{"url": None}, {"src": "", "url": None}, {"url": "a.jpg"}], ["a.jpg"]),
        ("", []),
        (" , ", []),
        (["a,b.jpg", " c d.jpg "], ["a,b.jpg", "c d.jpg"]),
        ([["a.jpg"], [["b.jpg", None]]], ["a.jpg", "b.jpg"]),
        ([{"url": "a.jpg"}, {"src": "b.jpg"}, {"href": "c"}, {"uri": "d.jpg"}], ["a.jpg", "b.jpg", "c", "d.jpg"]),
        ({"url": "a.jpg", "width": 5}, ["a.jpg"]),
        ("data:image/png;base64,iVBORw0KGgo=", ["data:image/png;base64,iVBORw0KGgo="]),
        (None, []),
    ],
)  # fmt: skip
def test_pictures_of_a_cell(value: Any, names: list[str]) -> None:
    assert picture_names(value, None) == names


@pytest.mark.parametrize(
    ("text", "separator", "names"),
    [
        ("a b, c", ",", ["a b", "c"]),
        (f"{A}#{B}", "#", [A, B]),
        ("a.jpg b.jpg", ";", ["a.jpg b.jpg"]),
        ("a||b||", "||", ["a", "b"]),
    ],
)
def test_a_separator_that_is_given(text: str, separator: str, names: list[str]) -> None:
    assert picture_names(text, separator) == names


@pytest.mark.parametrize("value", [7, True, {"alt": "x"}, ["a.jpg", 7], [{"url": ["a.jpg"]}]])
def test_what_names_no_picture(value: Any) -> None:
    with pytest.raises(RowError) as error:
        picture_names(value, None)
    assert error.value.code == "bad_image_uri"


def test_a_deep_list() -> None:
    deep: Any = "a.jpg"
    for _ in range(5000):
        deep = [deep]
    assert picture_names(deep, None) == ["a.jpg"]
    assert picture_names("[" * 100_000 + "]" * 100_000, None) == ["[" * 99_999 + "]" * 99_999]
    with pytest.raises(RowError, match="bad_image_uri"):
        picture_names([{"url": json.loads("[" * 500 + "]" * 500)}], None)


@pytest.mark.parametrize("text", ["a,", "a (b", "<img ", "a.jpg?", "'a' 'b", "https:", "a 1x, "])
def test_a_huge_cell_takes_time_in_proportion(text: str) -> None:
    began = time.process_time()
    assert picture_names(text * 30_000, None)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("name", "base", "uri"),
    [
        ("/m/b/a.jpg", "/shop/media", "/shop/media/m/b/a.jpg"),
        ("/shop/media/a.jpg", "/shop/media/", "/shop/media/a.jpg"),
        ("/m/b/a.jpg", "s3://shop/media", "s3://shop/media/m/b/a.jpg"),
        ("//cdn.example/a.jpg", "s3://shop/media", "https://cdn.example/a.jpg"),
    ],
)
def test_a_slash_at_the_beginning_is_below_a_folder_that_was_named(name: str, base: str, uri: str) -> None:
    assert picture_uri(name, base, rooted=True) == uri


@pytest.mark.parametrize("name", ["/../a.jpg", "../a.jpg", "file:///etc/passwd", "/a/../../../etc/passwd"])
def test_nothing_leads_out_of_a_folder_that_was_named(name: str) -> None:
    with pytest.raises(RowError, match="leads out"):
        picture_uri(name, "/shop/media", rooted=True)


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("a.jpg", "/shop/a.jpg"),
        ("./sub/../a.jpg", "/shop/a.jpg"),
        ("photos\\a.jpg", "/shop/photos/a.jpg"),
        ("/shop/a.jpg", "/shop/a.jpg"),
        ("file:///shop/my%20photo.jpg", "/shop/my photo.jpg"),
        ("file://localhost/shop/a.jpg", "/shop/a.jpg"),
        ("//cdn/x.jpg", "https://cdn/x.jpg"),
        ("//cdn.example/x.jpg?a=1|2", "https://cdn.example/x.jpg?a=1|2"),
        ("HTTPS://cdn.example/x.jpg", "HTTPS://cdn.example/x.jpg"),
        ("s3://bucket/c,d.jpg", "s3://bucket/c,d.jpg"),
        ("12:30.jpg", "/shop/12:30.jpg"),
    ],
)
def test_names_as_uris(name: str, uri: str) -> None:
    assert picture_uri(name, "/shop") == uri


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "save it as a file"),
        ("blob:https://shop.example/1", "save it as a file"),
        ("C:\\pic.jpg", "a Windows machine.*--image-base"),
        ("D:/pics/a.jpg", "a Windows machine"),
        ("\\\\server\\share\\a.jpg", "a Windows machine"),
        ("file:///C:/pics/a.jpg", "a Windows machine"),
        ("file:///etc/passwd", "leads out of /shop"),
        ("/shopping/a.jpg", "leads out of /shop"),
        ("file:///shop/%2e%2e/etc/passwd", "leads out of /shop"),
        ("../a.jpg", "leads out of /shop"),
        ("..\\..\\a.jpg", "leads out of /shop"),
        ("ftp://shop.example/a.jpg", "expected a local path"),
        ("https://shop.example/", "expected a local path"),
        ("https:a.jpg", "expected a local path"),
        ("a\0.jpg", "expected a local path"),
    ],
)
def test_names_that_cannot_be_used(name: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason) as error:
        picture_uri(name, "/shop")
    assert error.value.code == "bad_image_uri"


def test_names_below_a_folder_in_s3() -> None:
    assert picture_uri("sub/a b.jpg", "s3://shop/photos/") == "s3://shop/photos/sub/a b.jpg"
    for name in ("../a.jpg", "/a.jpg", "file:///a.jpg"):
        with pytest.raises(RowError, match="leads out of s3://shop/photos"):
            picture_uri(name, "s3://shop/photos")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['Men' 'Shirts']", ["Men", "Shirts"]),
        ("['a.jpg'\n 'b.jpg'\n 'c.jpg']", ["a.jpg", "b.jpg", "c.jpg"]),
        ("['Men', nan]", ["Men", None]),
        ("[\"it's\" 'nan']", ["it's", "nan"]),
        ('["Men", null]', ["Men", None]),
        ('{Women,"Ethnic Wear",Sarees}', ["Women", "Ethnic Wear", "Sarees"]),
        ('{"b, c","a \\"x\\"",NULL}', ["b, c", 'a "x"', None]),
        ('{"https://x/b,1.jpg","https://x/a.jpg"}', ["https://x/b,1.jpg", "https://x/a.jpg"]),
        ("{a.jpg, b.jpg}", ["a.jpg", "b.jpg"]),
        ("{'url': 'a.jpg'}", {"url": "a.jpg"}),
        ("[a.jpg, b.jpg]", "a.jpg, b.jpg"),
        ('{"url": bad}', '"url": bad'),
        ("a, b", "a, b"),
    ],
)
def test_lists_as_programs_print_them(text: str, value: Any) -> None:
    assert read_listed(text) == value


def test_rooted_names_below_a_web_address() -> None:
    base = "https://shop.example/media/catalog/product"
    assert picture_uri("/m/b/mb01.jpg", base) == f"{base}/m/b/mb01.jpg"
    for name in ("/../a.jpg", "file:///a.jpg"):
        with pytest.raises(RowError, match="leads out of"):
            picture_uri(name, base)
