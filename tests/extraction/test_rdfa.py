import json
import os
import subprocess
import sys

import pytest

from tests.extraction.pages import URL, page_of, product

pytestmark = pytest.mark.long

SCHEMA = 'vocab="http://schema.org/"'
NAMES = ("Tools", "Hand tools", "Hammers", "Sledges", "Long ones", "Red", "Old")
IMAGES = tuple(f"https://www.shop.example/{letter}.jpg" for letter in "zyxwvutsrq")
PICTURES = "".join(f'<img property="image" src="{url}">' for url in IMAGES)
PRODUCT = f'<div {SCHEMA} typeof="Product"><h1 property="name">Executive Anvil</h1>{PICTURES}</div>'
CRUMB = '<span typeof="v:Breadcrumb"><a rel="v:url" property="v:title" href="/c/{0}">{0}</a></span>'
ENTRY = (
    '<li property="itemListElement" typeof="ListItem"><a property="item" typeof="WebPage" href="/c/{0}">{1}</a></li>'
)
FLAT = f'<p xmlns:v="http://rdf.data-vocabulary.org/#">{"".join(map(CRUMB.format, NAMES))}</p>'
PLAIN_ENTRY = '<li property="itemListElement" typeof="ListItem"><span property="name">{0}</span></li>'


def chained(names: tuple[str, ...], rel: str = "") -> str:
    inner = chained(names[1:], 'rel="v:child"') if names[1:] else ""
    link = f'<a rel="v:url" property="v:title" href="/c/{names[0]}">{names[0]}</a>'
    return f'<span {rel}><span typeof="v:Breadcrumb">{link}{inner}</span></span>'


def listed(entry: str) -> str:
    entries = "".join(entry.format(name, f'<span property="name">{name}</span>') for name in NAMES)
    return f'<ol {SCHEMA} typeof="BreadcrumbList">{entries}</ol>'


BREADCRUMBS = {
    "flat": FLAT,
    "chained": f'<p xmlns:v="http://rdf.data-vocabulary.org/#">{chained(NAMES)}</p>',
    "list": listed(ENTRY),
    "plain list": listed(PLAIN_ENTRY),
    "inlist": listed(PLAIN_ENTRY.replace("<li ", '<li inlist="" ')),
}


@pytest.mark.parametrize("kind", BREADCRUMBS)
def test_values_come_in_the_order_of_the_document(kind: str) -> None:
    found = product(page_of(body=BREADCRUMBS[kind] + PRODUCT))
    assert (found.breadcrumb, found.origins["breadcrumb"]) == (NAMES, "rdfa")
    assert found.image_urls == IMAGES


OFFERS = "".join(
    f'<div property="offers" typeof="Offer"><b property="price">{price}</b><b property="sku">A{price}</b></div>'
    for price in (30, 20, 20.0, 25)
)
BODIES = (
    *(body + PRODUCT for body in BREADCRUMBS.values()),
    PRODUCT.replace("</div>", OFFERS + "</div>"),
    f'<div {SCHEMA} typeof="Product"><b property="name">Executive Anvil</b><b property="name">Anvil</b>'
    f'<b property="sku">A-1</b><b property="sku">A-2</b><b property="brand">ACME</b><b property="brand">Works</b>'
    f"{PICTURES}</div>",
)
SCRIPT = """
import json, sys
from tests.extraction.pages import page_of, product
for body in json.load(sys.stdin):
    found = product(page_of(body=body))
    print(repr({**vars(found), "origins": sorted(found.origins.items())}))
"""


def test_every_process_reads_the_same() -> None:
    processes = []
    for seed in ("0", "1", "2", "3"):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    outputs = [process.communicate(json.dumps(BODIES))[0] for process in processes]
    assert outputs[0].count(URL) == len(BODIES)
    assert set(outputs) == {outputs[0]}


def test_a_price_and_a_title_are_what_readers_see() -> None:
    body = f"""<div {SCHEMA} typeof="Product"><h1 property="name">Executive Anvil <i class="sr-only">(new)</i></h1>
    <div property="offers" typeof="Offer"><b property="price">19<sup>99</sup></b>
    <meta property="priceCurrency" content="EUR"></div></div>"""
    found = product(page_of(body=body))
    assert (found.title, found.price, found.currency) == ("Executive Anvil", 19.99, "EUR")
