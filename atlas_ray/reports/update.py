"""Terminal output of an update: what came, what was scored, and what moved."""

from typing import Any

from atlas_ray.reports.terminal import wide_console
from atlas_ray.taxonomy import format_path

PRODUCTS = {
    "added": "new", "changed": "changed", "removed": "removed", "same": "the same", "absent": "not in the source",
}  # fmt: skip


def print_update(updated: Any) -> None:
    """Print the summary of an update (`atlas_ray.pipelines.update.Updated`)."""
    console = wide_console()
    account = updated.account
    if updated.already_done:
        console.print(f"{account['run']} holds this update, finished {account['finished_at'][:19]}; nothing to do")
    for line in summary(account, updated.scored.counts):
        console.print(line)


def summary(account: dict[str, Any], pictures: dict[str, int]) -> list[str]:
    """Return the lines of the summary.

    Args:
        account: The content of `update.json`, with `products`.
        pictures: Counts of the run's pictures by outcome.
    """
    products = (f"{account['products'].get(name, 0)} {word}" for name, word in PRODUCTS.items())
    scored = ", ".join(f"{pictures[name]} {name}" for name in ("scored", "carried", "filtered", "quarantined"))
    lines = [f"products: {', '.join(products)}", f"pictures: {scored}"]
    compared = account["compared"]
    labels = any("label" in move for move in account["moves"])
    if account["uncompared"]:
        lines.append(f"not compared with {account['previous']}: {account['uncompared']}")
    elif compared is None:
        lines.append("no earlier run was there to compare with: all was scored")
    else:
        moved, both = compared["moved"], compared["moved"] + compared["same"]
        other = "other labels" if labels else "another path"
        lines.append(f"moved: {moved} of the {both} products in {account['previous']} too have {other}")
        lines += map(_move, account["moves"])
    lines.append(f"all answers: {account['run']}/products, of the catalogue {account['version']}")
    if compared and sum(compared.values()) > compared["same"]:
        lines.append(
            f"to see what moved: {account['run']}/comparison/{'labels.parquet' if labels else 'comparison.html'}"
        )
    lines.append(f"to review: atlas-ray review --run {account['run']} --output NEW --serve")
    return lines


def _move(move: dict[str, Any]) -> str:
    if "label" in move:
        return f"  {move['label']}: {move['gained']} gained it, {move['lost']} lost it"
    return f"  {_path(move['from'])} → {_path(move['to'])}: {move['products']}"


def _path(path: list[str] | None) -> str:
    return format_path(path) if path else "(no answer)"
