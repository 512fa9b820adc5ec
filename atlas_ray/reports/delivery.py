"""Terminal output of commands that hand a run on to other systems."""

from typing import Any


def print_export(report: Any) -> None:
    """Print what an export wrote (`atlas_ray.pipelines.export.ExportReport`)."""
    sources = ", ".join(f"{count} by {name}" for name, count in report.sources.most_common() if name != "none")
    nobody = report.sources["none"]
    print(f"{report.products} products in {report.output}" + (f": {sources}" if sources else ""))
    if nobody:
        print(f"  {nobody} without a category")
    print(f"  {report.needs_review} need a review")
    if report.refused:
        listed = ", ".join(f"{code} {count}" for code, count in report.refused.most_common())
        print(f"  {report.refused.total()} of {report.corrections} corrections cannot be used: {listed}")
    if report.quarantine:
        listed = ", ".join(f"{name} {count}" for name, count in report.quarantined.most_common(5))
        print(f"not among them, in {report.quarantine}: {report.quarantined.total()} rows, {listed}")


def print_publish(report: Any) -> None:
    """Print what was published (`atlas_ray.publishing.publish.PublishReport`)."""
    run, commit = report.run, report.commit
    if report.already_done:
        print(f"{report.table} has this run (id {run.id}) already, as version {commit.version}; nothing to do")
        return
    how = "by reference" if commit.by_reference else "copied"
    print(f"{run.rows} products of {run.uri} (id {run.id}) are version {commit.version} of {report.table}")
    print(f"  {len(run.files)} files, {how}")
    if commit.by_reference:
        print(f"  the table reads them where they are: keep {run.uri}/products")
