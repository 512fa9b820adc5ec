from collections.abc import Callable
from pathlib import Path

import pytest

from atlas_ray.crawl.frontier import Frontier, Kind, Outcome

SHOP = "https://shop.example"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "frontier.sqlite3")


def product(name: str) -> Outcome:
    return Outcome("product", product={"url": f"{SHOP}/{name}", "title": name})


def test_what_was_not_finished_waits_again(path: str) -> None:
    frontier = Frontier(path)
    frontier.add_starts([SHOP])
    (listing,) = frontier.take(10)
    assert frontier.take(10) == []
    links = (
        f"{SHOP}/a",
        f"{SHOP}/b?y=2&x=1",
        f"{SHOP}/b?x=1&y=2#top",
        SHOP,
        "http://[::1",
        f"{SHOP}/x\ud83d",
    )
    frontier.finish(listing, Outcome("listing", links=tuple((link, "product") for link in links)))
    first, *others = frontier.take(10)
    assert [visit.url for visit in others] == [f"{SHOP}/b?y=2&x=1", "http://[::1", f"{SHOP}/x?"]
    frontier.finish(first, product("a"))
    # No close: the process dies here.

    again = Frontier(path)
    again.add_starts([SHOP])
    assert (again.finished(), again.waiting()) == (2, 3)
    assert again.take(2) + again.take(2) == others
    again.finish(others[0], product("a"))
    again.finish(others[1], Outcome("unsupported_uri", "no \ud83d host"))
    assert [row["title"] for row in again.products()] == ["a"]
    assert again.outcomes() == {"duplicate": 1, "listing": 1, "product": 1, "unsupported_uri": 1}
    assert list(again.failures()) == [("http://[::1", "unsupported_uri", "no ? host")]


def test_what_failed_for_a_passing_reason_waits_again(path: str) -> None:
    frontier = Frontier(path)
    frontier.add_starts([f"{SHOP}/1", f"{SHOP}/2"])
    for visit, code in zip(frontier.take(2), ("timeout", "not_found"), strict=True):
        frontier.finish(visit, Outcome(code, "a message"))
    assert [code for _, code, _ in frontier.failures()] == ["timeout", "not_found"]
    again = Frontier(path)
    assert [visit.url for visit in again.take(9)] == [f"{SHOP}/1"]
    assert [code for _, code, _ in again.failures()] == ["not_found"]


def follow(frontier: Frontier, pages: Callable[[int], list[str]], *, product: str, limit: int = 200) -> int:
    """Crawl a listing without end; return how many of its pages were asked for."""
    frontier.add_starts(["http://shop/list?page=0"])
    listings = 0
    while listings < limit and (visits := frontier.take(1)):
        (visit,) = visits
        if visit.kind == "product":
            url = "http://shop/p" if product == "same" else visit.url
            found = {"url": url} if product in ("same", "new") else None
            frontier.finish(visit, Outcome("product" if found else product, product=found))
        else:
            listings += 1
            links: list[tuple[str, Kind]] = [(url, "product") for url in pages(listings)]
            frontier.finish(visit, Outcome("listing", links=(*links, (f"http://shop/list?page={listings}", "listing"))))
    return listings


@pytest.mark.parametrize(
    ("pages", "product", "wanted"),
    [
        (lambda page: [], "new", 5),  # a calendar
        (lambda page: ["http://shop/1", "http://shop/2"], "new", 6),  # the last page again and again
        (lambda page: [f"http://shop/1?from={page}"], "same", 7),  # one product under ever new addresses
        (lambda page: [f"http://shop/{page}"], "not_a_product", 6),  # what is no product
        (lambda page: [f"http://shop/{min(page, 30)}"], "new", 35),  # thirty good pages before it
        (lambda page: [f"http://shop/{page // 4}"], "new", 200),  # a new one every fourth page
        (lambda page: [f"http://shop/{page}"], "server_error", 200),  # what may still come
    ],
)
def test_a_listing_is_left_after_pages_without_a_new_product(
    tmp_path: Path, pages: Callable[[int], list[str]], product: str, wanted: int
) -> None:
    frontier = Frontier(str(tmp_path / "f.sqlite3"), max_idle_pages=5)
    assert follow(frontier, pages, product=product) == wanted
    ended = [(code, message) for _, code, message in frontier.failures() if code == "no_new_products"]
    assert len(ended) == (wanted < 200)
    assert all(message.startswith("5 pages in a row without a new product") for _, message in ended)


def test_products_that_another_start_led_to_keep_a_listing_going(tmp_path: Path) -> None:
    frontier = Frontier(str(tmp_path / "f.sqlite3"), max_idle_pages=3)
    frontier.add_starts(["http://shop/a", "http://shop/b"])
    first, second = frontier.take(2)
    known: list[tuple[str, Kind]] = [(f"http://shop/{n}", "product") for n in range(8)]
    frontier.finish(first, Outcome("listing", links=tuple(known)))
    for visit in frontier.take(8):
        frontier.finish(visit, Outcome("product", product={"url": visit.url}))
    pages = 0
    visits = [second]
    while visits:
        pages += 1
        links: list[tuple[str, Kind]] = [known[min(pages, 8) - 1], (f"http://shop/b?{pages}", "listing")]
        frontier.finish(visits[0], Outcome("listing", links=tuple(links)))
        visits = frontier.take(1)
    assert pages == 8 + 3
