"""Terminal output of the commands that collect and clean pictures, from their run records."""

from collections.abc import Mapping
from typing import Any

SHOWN = 10


def print_crawl(folder: str, run: Mapping[str, Any]) -> None:
    """Print the result of a crawl.

    Args:
        folder: Of the crawl.
        run: Its account.
    """
    counts = run["counts"]
    print(
        f"{counts['pages']} pages of {counts['stores']} stores: {counts['products']} products, "
        f"{counts['duplicates']} seen twice, {counts['listings']} listings, {counts['quarantined']} in quarantine"
    )
    _print_codes(run)
    for field, origins in run["fields_by_origin"].items():
        print(f"  {field}: {', '.join(f'{count} from {origin}' for origin, count in origins.items())}")
    if counts["waiting"]:
        print(f"{counts['waiting']} pages are left: --max-pages was reached; with more the same command goes on")
    if unmapped := run["unmapped"]:
        products = sum(row["products"] for row in unmapped)
        print(f"{products} products have a breadcrumb that leads nowhere in the taxonomy; extend --mapping, run again:")
        for row in unmapped[:SHOWN]:
            print(f"  {row['products']} of {row['store']}: {row['breadcrumb'] or '(none)'}")
        if len(unmapped) > SHOWN:
            print(f"  and {len(unmapped) - SHOWN} more, in {folder}/run.json")


def print_fetch(output: str, run: Mapping[str, Any]) -> None:
    """Print the result of a fetch.

    Args:
        output: Of the fetch.
        run: Its account.
    """
    counts = run["counts"]
    print(f"{counts['stored']} of {counts['input']} pictures stored, {counts['quarantined']} in quarantine")
    _print_codes(run)
    print(f"the catalogue of them: {output}")


def print_filter(output: str, run: Mapping[str, Any]) -> None:
    """Print the result of a filter.

    Args:
        output: Of the filter.
        run: Its account.
    """
    counts = run["counts"]
    print(
        f"{counts['kept']} of {counts['input']} pictures kept ({counts['kept_least_zoomed']} of them zoomed, of "
        f"products without another), {counts['rejected']} rejected, {counts['quarantined']} in quarantine"
    )
    _print_codes(run)
    print(f"the catalogue without them: {output}/kept; a look at them: {output}/contact-sheet.html")


def print_duplicates(output: str, run: Mapping[str, Any], straddling: int, changed: int) -> None:
    """Print the result of a search for duplicates.

    Args:
        output: Of the search.
        run: Its account.
        straddling: How many groups of products were on several sides of the split.
        changed: How many products have another split now.
    """
    counts = run["counts"]
    print(
        f"{counts['duplicate_pictures']} of {counts['fingerprinted']} pictures stand under several products: "
        f"{counts['groups']} groups of {counts['products_in_groups']} products; {counts['placeholders']} placeholders"
    )
    _print_codes(run)
    print(f"{straddling} groups were on several sides of the split; {changed} products have another split now")
    print(f"the catalogue with the new split: {output}/catalog; the pictures: {output}/duplicates.parquet")


def print_relabel(report: Any) -> None:
    """Print the result of corrections (`atlas_ray.catalog.corrections.RelabelReport`)."""
    done = ", ".join(f"{count} {name}" for name, count in report.outcomes.items() if count) or "none taken over"
    splits = ", ".join(f"{name} {count}" for name, count in sorted(report.splits.items()))
    print(f"{report.corrections} corrections: {done}" + (f"; by split: {splits}" if splits else ""))
    _print_refused(report)
    for message in report.refused:
        print(f"    {message}")
    if (more := report.quarantined.total() - len(report.refused)) > 0:
        print(f"    and {more} more")
    if report.quarantined:
        source = f"--catalog {report.output} --products {report.output}/quarantine"
        print(f"  to decide on them again: atlas-ray review {source} --output NEW --serve")
    print(f"the catalogue with them: {report.output}")


def print_select(report: Any) -> None:
    """Print the result of a selection (`atlas_ray.catalog.selection.SelectReport`)."""
    print(f"{report.products} of {report.listed} listed products, {report.images} pictures")
    _print_refused(report)
    print(f"the catalogue of them: {report.output}")


def print_sample(report: Any) -> None:
    """Say what was drawn (`atlas_ray.catalog.sample.SampleReport`)."""
    print(
        f"{report.products} of {report.of} products, {report.images} pictures; {report.paths} category paths, each kept"
    )
    if report.unlabelled:
        print(f"  {report.unlabelled} of them without a label")
    print(f"the catalogue of them: {report.output}")


def _print_refused(report: Any) -> None:
    if report.quarantined:
        _print_codes({"quarantined_by_code": report.quarantined})
        print(f"  see {report.output}/quarantine")


def _print_codes(run: Mapping[str, Any]) -> None:
    codes = sorted(run["quarantined_by_code"].items(), key=lambda item: (-item[1], item[0]))
    if codes:
        print(f"  quarantine: {', '.join(f'{code} {count}' for code, count in codes)}")
