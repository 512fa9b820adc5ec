"""How much of what people read on saved shop pages the extraction finds, without a selector."""

import csv
import gzip
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from atlas_ray.extraction.breadcrumbs import find_breadcrumb
from atlas_ray.extraction.extract import Extracted, NotAProduct, extract
from atlas_ray.extraction.page import Page
from atlas_ray.extraction.structured import StructuredData

DATA_COLUMNS = ("jsonld_product", "microdata_product", "og_product")
DOLLARS = frozenset(("USD", "CAD", "AUD", "NZD", "TWD", "HKD", "SGD", "CLP", "MXN", "COP", "ARS"))
CODES_OF_SIGN = {
    "$": DOLLARS, "€": {"EUR"}, "£": {"GBP"}, "₽": {"RUB"}, "lei": {"RON"}, "zł": {"PLN"}, "원": {"KRW"},
    "rs": {"PKR", "INR", "LKR"}, "ر.س": {"SAR"}, "тг": {"KZT"},
}  # fmt: skip
TO_BE_HAD = {"SoldOut": "OutOfStock", "Discontinued": "OutOfStock", "LimitedAvailability": "InStock"}
# As the snippets' publisher reads them, "Home" left out.
BREADCRUMBS = {
    "comments1.html": ("Haberler", "Yerel Haberler", "Ankara", "ABB’den Balcı’ya Ulus yanıtı"),
    "include-non-anchor.html": (
        "Informática",
        "Portátiles",
        "Portátil HP Notebook 15-da0045ns con i5, 8GB, 256GB, 39,62 cm - 15,6''",
    ),
    "nested-data-vocabulary.html": ("Propiedades", "RENTA DE CASAS VACACIONALES EN ORLANDO"),
    "semantic-markup.html": ("Ultrabook", "Lenovo", "Lenovo ThinkPad Edge E130 Fekete Ultrabook"),
    "snippet1.html": ("Shellfish",),
    "snippet5.html": ("Additive", "Benzin-Additiv", "WAGNER Bactofin Benzinstabilisator"),
}


@dataclass
class Report:
    """What was found on the pages of a folder."""

    equal: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    stated: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    products: tuple[int, int] = (0, 0)
    """Product pages with structured data: products made, pages."""
    others: tuple[int, int] = (0, 0)
    """Pages that show no product: products made, pages."""
    bare: tuple[int, int] = (0, 0)
    """Product pages without structured data: products made, pages."""
    breadcrumbs: tuple[int, int] = (0, 0)
    """Snippets: equal paths, snippets."""
    missing: int = 0
    """Pages of the table that the folder does not have."""
    milliseconds: list[float] = field(default_factory=list)


def same_price(found: object, given: str) -> bool:
    return isinstance(found, float) and abs(found - float(given)) < 0.005


def same_currency(found: object, given: str) -> bool:
    return found == given or found in CODES_OF_SIGN.get(given.strip(" .,~").lower(), ())


def same_brand(found: object, given: str) -> bool:
    return " ".join(str(found or "").split()).casefold() == " ".join(given.split()).casefold()


def same_sku(found: object, given: str) -> bool:
    return re.sub(r"[\W_]", "", str(found or "")).casefold() == re.sub(r"[\W_]", "", given).casefold()


def same_availability(found: object, given: str) -> bool:
    return TO_BE_HAD.get(str(found), str(found)) == given


SAME: dict[str, Callable[[object, str], bool]] = {
    "price": same_price,
    "currency": same_currency,
    "brand": same_brand,
    "sku": same_sku,
    "availability": same_availability,
}


def read_page(file: Path, url: str) -> Page:
    body = file.read_bytes()
    return Page(url, gzip.decompress(body) if file.suffix == ".gz" else body, "text/html")


def measure(folder: Path) -> Report:
    """Extract every page of a folder and compare."""
    report = Report()
    with (folder / "pages.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if not (folder / row["file"]).exists():
            report.missing += 1
            continue
        page = read_page(folder / row["file"], row["url"])
        name = Path(row["file"]).name
        if row["role"] == "fragment":
            if name not in BREADCRUMBS:
                continue
            names, _ = find_breadcrumb(page, StructuredData(page))
            right = names == BREADCRUMBS[name]
            report.breadcrumbs = (report.breadcrumbs[0] + right, report.breadcrumbs[1] + 1)
            if not right:
                report.differences.append(f"{name}: breadcrumb {names}, not {BREADCRUMBS[name]}")
            continue
        started = time.process_time()
        found = extract(page)
        report.milliseconds.append(1000 * (time.process_time() - started))
        made = isinstance(found, Extracted)
        if not row["role"].startswith("product"):
            report.others = (report.others[0] + made, report.others[1] + 1)
            if isinstance(found, Extracted):
                report.differences.append(f"{name}: a product made of a page without one: {found.title!r}")
        elif any(row[column] not in ("", "0") for column in DATA_COLUMNS):
            report.products = (report.products[0] + made, report.products[1] + 1)
            _compare(row, found, report)
        else:
            report.bare = (report.bare[0] + made, report.bare[1] + 1)
    return report


def _compare(row: dict[str, str], found: Extracted | NotAProduct, report: Report) -> None:
    where = f"{row['file'][-40:-8]} {row['url'][:60]}"
    if isinstance(found, NotAProduct):
        report.differences.append(f"{where}: no product: {found.reason}")
    for name, same in SAME.items():
        given = row[f"gt_{name}"].strip()
        if not given:
            continue
        value = getattr(found, name, None)
        right = any(same(value, part) for part in given.split("|"))
        report.given[name] = report.given.get(name, 0) + 1
        report.stated[name] = report.stated.get(name, 0) + (value is not None)
        report.equal[name] = report.equal.get(name, 0) + right
        if not right:
            origin = found.origins.get(name) if isinstance(found, Extracted) else None
            report.differences.append(f"{where}: {name} {value!r} ({origin}), not {given!r}")
