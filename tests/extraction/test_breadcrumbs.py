import pytest

from tests.extraction.pages import PRODUCT, page_of, product

RIGHT = ("Tools", "Anvils")
HOME = '<li><a href="/">Home</a></li>'
TOYS = '<li><a href="/toys">Toys</a></li><li><a href="/food">Food</a></li>'


def read(body: str, *blocks: object) -> tuple[str, ...]:
    return product(page_of({**PRODUCT, "name": "Executive Anvil"}, *blocks, body=body)).breadcrumb


def trail(*entries: str) -> str:
    return f'<ol class="breadcrumb">{"".join(f"<li>{entry}</li>" for entry in entries)}</ol>'


MENUS = [
    f'<a href="/tools">Tools</a><ul class="dropdown-menu">{TOYS}</ul>',
    f'<a href="/tools">Tools</a><div class="flyout"><ul>{TOYS}</ul></div>',
    '<a href="/tools">Tools</a><div><a href="/toys">Toys</a> <a href="/food">Food</a></div>',
    '<span><a href="/tools">Tools</a><span class="submenu"><a href="/toys">Toys</a></span></span>',
    '<div class="dropdown"><a class="dropdown-toggle" href="/tools">Tools</a><div><a href="/toys">Toys</a></div></div>',
    '<a href="/tools">Tools</a><div role="menu"><span>Toys</span></div>',
    '<a href="/tools">Tools</a><select><option>Toys</option></select>',
    '<a href="/tools">Tools</a><button>All in Tools</button><dialog><a href="/toys">Toys</a></dialog>',
    f'<a href="/tools">Tools</a><details><summary>▾</summary><ul>{TOYS}</ul></details>',
    '<div class="menu-item"><a href="/tools">Tools</a></div>',
]  # fmt: skip


@pytest.mark.parametrize("crumb", MENUS)
def test_a_menu_inside_a_crumb(crumb: str) -> None:
    assert read(trail('<a href="/">Home</a>', crumb, "Anvils")) == RIGHT


@pytest.mark.parametrize(
    "attributes",
    [
        "hidden",
        'aria-hidden="true"',
        'style="display: none"',
        'style="visibility:hidden"',
        'class="sr-only"',
        'class="visually-hidden"',
        'class="screen-reader-text"',
        'class="crumb d-none"',
    ],
)
def test_what_is_hidden(attributes: str) -> None:
    assert read(trail(f"<b {attributes}>You are here</b>", "<a>Tools</a>", f"Anvils<i {attributes}>now</i>")) == RIGHT
    assert read(trail("<a>Tools</a>", f"<a>Anvils <i {attributes}>(current)</i></a>")) == RIGHT
    for_phones = trail("<a>Toys</a>", "<a>Hammers</a>").replace("<ol", f"<ol {attributes}", 1)
    assert read(f"<div {attributes}>{for_phones}</div>" + trail("<a>Tools</a>", "<a>Anvils</a>")) == RIGHT


def test_what_is_hidden_on_narrow_screens_alone() -> None:
    assert read(trail('<a class="hidden md:block">Tools</a>', '<a class="d-none d-md-inline">Anvils</a>')) == RIGHT
    hidden = trail("<a>Tools</a>", "<a>Anvils</a>")
    assert read(f'<div class="d-none">{hidden}</div>') == RIGHT  # there is no other


@pytest.mark.parametrize(
    "entries",
    [
        ("<a>Back</a>", '<a href="/">Home</a>', "<a>Tools</a>", "Anvils"),
        ("<a>« Back to results</a>", "<a>Tools</a>", "Anvils"),
        ("<a>‹ Zurück</a>", "<a>Startseite</a>", "<a>Tools</a>", "Anvils"),
        ("<a>Back to Hammers</a>", "<a>Home</a>", "<a>Tools</a>", "Anvils"),
        ("<a>Tools</a>", "<a>Anvils</a>", "<a>← Back to Anvils</a>"),
        ("<a>Retour</a>", "<a>Tools</a>", "Anvils"),
        ("Your search", '<a href="/">Home</a>', "<a>Tools</a>", "Anvils"),
        ('<a href="/">Home</a>', '<a href="/#top">Home</a>', "<a>Tools</a>", "Anvils"),
        ("<a>Shop</a>", "<a>Home</a>", "<a>Tools</a>", "Anvils"),
        ("<a>Tools</a>", "<a>Anvils</a>", '<a href="/">Home</a>'),
        ("<a>Tools</a> -", "<a>Anvils</a> –"),
        ("<a>Tools -</a>", "<a>Anvils →</a>"),
        ("<a>→ Tools »</a>", "<a>| Anvils |</a>", "—"),
        ("<a>\ue001 Tools</a>", "<a>Anvils \uf054</a>"),
        ('<a href="/" aria-label="Home"><svg></svg></a>', '<a><i aria-hidden="true">next</i>Tools</a>', "Anvils"),
    ],
)  # fmt: skip
def test_what_is_no_category(entries: tuple[str, ...]) -> None:
    assert read(trail(*entries)) == RIGHT


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (('<a href="/">Home</a>', '<a href="/c/home">Home</a>', "<a>Bedding</a>"), ("Home", "Bedding")),
        (("<a>Home</a>", "<a>Home</a>", "<a>Bedding</a>"), ("Home", "Bedding")),
        (("<a>Sale</a>", '<a href="/sale/home">Home</a>', "<a>Bedding</a>"), ("Sale", "Home", "Bedding")),
        (("<a>Back to School</a>", "<a>Bags</a>"), ("Back to School", "Bags")),
        (("<a>Tools</a>", "<a>T-Shirts</a>", "<a>3-in-1</a>"), ("Tools", "T-Shirts", "3-in-1")),
        (('<a href="/">Home</a>', '<a href="/shop">Shop</a>', "<a>Tools</a>"), ("Shop", "Tools")),
    ],
)
def test_what_is_a_category(entries: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert read(trail(*entries)) == names


INNER = f'<ul>{HOME}<li><a href="/tools">Tools</a></li><li><a href="/anvils">Anvils</a></li></ul>'
PAGE = '<div itemscope itemtype="http://schema.org/WebPage">{}</div>'


@pytest.mark.parametrize(
    "body",
    [
        PAGE.format(f'<div itemprop="breadcrumb">{INNER}</div>'),
        PAGE.format(f'<div itemprop="breadcrumb">You are here: {INNER} » Executive Anvil</div>'),
        PAGE.format('<p itemprop="breadcrumb"><span>Home</span><span>Tools</span><span>Anvils</span></p>'),
        PAGE.format('<p itemprop="breadcrumb">Home &gt; Tools &gt; Anvils</p>'),
        PAGE.format('<p itemprop="breadcrumb">Home / Tools / Anvils</p>'),
        PAGE.format(f'<p itemprop="breadcrumb"><span class="breadcrumb">{INNER.replace("li", "b")}</span></p>'),
        f'<div vocab="http://schema.org/" typeof="WebPage"><div property="breadcrumb">{INNER}</div></div>',
        PAGE.format(
            '<div itemprop="breadcrumb">All <a>Toys</a> <a>Food</a> <a>Toys</a> <a>Food</a> <ol itemscope '
            'itemtype="http://schema.org/BreadcrumbList">'
            + "".join(
                f'<li itemprop="itemListElement" itemscope itemtype="http://schema.org/ListItem">'
                f'<span itemprop="name">{name}</span></li>'
                for name in ("Home", *RIGHT)
            )
            + "</ol></div>"
        ),
    ],
)
def test_a_wrapper_does_not_beat_the_list_inside(body: str) -> None:
    assert read(body) == RIGHT


@pytest.mark.parametrize(
    "body",
    [
        '<a href="/">Home</a><font> &gt; </font><a href="/t">Tools</a><font> &gt; </font><a href="/a">Anvils</a>',
        '<span><a href="/">Home</a></span><span> » </span><span><a>Tools</a> » </span><span><a>Anvils</a></span>',
        '<table><tr><td><a href="/">Home</a></td><td>&gt;</td><td><a href="/t">Tools</a></td><td>&gt;</td>'
        "<td>Anvils</td></tr></table><p>Heavy</p>",
        '<font size=1><a href="/">Home</a> &gt; <font color=red><a>Tools</a></font> &gt; Anvils</font><p>Heavy</p>',
        '<b>You are here:</b> <a href="/">Home</a> › <a href="/t">Tools</a> › <i>Anvils</i><h1>Executive Anvil</h1>',
        '<ul><li><a href="/">Home</a> →</li><li><a href="/t">Tools</a> →</li><li><a href="/a">Anvils</a></li></ul>',
        '<p><a href="/x">Login</a> <a href="/y">Cart</a></p><a href="/t">Tools</a><td>&gt;</td><a href="/a">Anvils</a>',
    ],
)
def test_links_with_arrows_between(body: str) -> None:
    assert read(body) == RIGHT


@pytest.mark.parametrize(
    "body",
    [
        "<a>One</a> | <a>Two</a> | <a>Three</a>",
        "<a>One</a> <a>Two</a>",
        "<a>One</a> &gt; and then <a>Two</a>",
        "<p>1 &gt; 0 <a>One</a></p><p>&gt;</p>",
    ],
)
def test_links_without_arrows(body: str) -> None:
    assert read(body) == ()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('<a href="/k">Kitchen</a> <img src="/a.gif" alt="&gt;"> <a href="/m">Cups</a>', ("Kitchen", "Cups")),
        ('<a href="/k">Kitchen</a><i>-&gt;</i><a href="/m">Cups</a>', ("Kitchen", "Cups")),
        ('<nav class="breadcrumb"><a href="/k">Kitchen</a> <a href="/m">Anvils</a></nav>', ("Kitchen", "Anvils")),
        ('<nav class="breadcrumb"><a href="/k">Kitchen</a> <b>Anvil - 3 kg</b></nav>', ("Kitchen",)),
        (f'<nav class="breadcrumb"><a href="/k">Kitchen</a>{" " * 60_000}x</nav>', ("Kitchen", "x")),
        (
            f'<nav class="breadcrumb"><a href="/k">Kitchen</a>{"-" * 60_000}<a href="/m">Cups</a></nav>',
            ("Kitchen", "Cups"),
        ),
    ],
)
def test_arrows_as_pictures_and_categories_named_like_the_product(body: str, names: tuple[str, ...]) -> None:
    assert product(page_of({"@type": "Product", "name": "Anvil", "sku": 7}, body=body)).breadcrumb == names
