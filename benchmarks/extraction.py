"""How much of what people read on saved shop pages the extraction finds, without a selector.

    python -m benchmarks.extraction --pages FOLDER

FOLDER holds pages.csv (file, role, url, what structured data a page has, and values that a person
read) and the pages; pages that it lacks are counted and left out. A value counts as equal where

- price: the numbers are;
- currency: the code is, or is one of those that the sign stands for (`$` is that of many);
- brand: the names are, apart from case and white space;
- SKU: the letters and digits are, apart from case;
- availability: it can be had or not in both (sold out is out of stock).

Of alternatives (`a|b`) one suffices. A person reads more than structured data says, so each share is
given twice: of all values that the person gave, where one that is not found counts as wrong, and of
those for which the page's structured data states anything.
"""

import argparse
import statistics
from pathlib import Path

from tests.support.saved_pages import SAME, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--differences", action="store_true", help="list what differs")
    options = parser.parse_args()
    report = measure(options.pages)
    print("| value | equal | of those given | share | of those stated | share |\n|---|---|---|---|---|---|")
    for name in SAME:
        equal, given, stated = (counts.get(name, 0) for counts in (report.equal, report.given, report.stated))
        shares = [f"{equal / count:.3f}" if count else "-" for count in (given, stated)]
        print(f"| {name} | {equal} | {given} | {shares[0]} | {stated} | {shares[1]} |")
    print(f"\nbreadcrumb snippets: {report.breadcrumbs[0]} of {report.breadcrumbs[1]} paths equal")
    print(f"product pages with structured data: {report.products[0]} products of {report.products[1]} pages")
    print(f"product pages without: {report.bare[0]} products of {report.bare[1]} pages")
    print(f"other and malformed pages: {report.others[0]} products of {report.others[1]} pages")
    if report.missing:
        print(f"pages of the table that are not in the folder: {report.missing}")
    times = sorted(report.milliseconds) or [0.0]
    print(f"\n{statistics.median(times):.0f} ms of CPU a page (median), {times[-1]:.0f} ms the slowest")
    if options.differences:
        print(*report.differences, sep="\n")


if __name__ == "__main__":
    main()
