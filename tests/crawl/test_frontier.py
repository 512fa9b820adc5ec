from pathlib import Path

import pytest

from atlas_ray.crawl.frontier import Frontier, Outcome

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
