"""Functions that the commands share: settings from flags, and exit codes."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from atlas_ray.runs.run_record import RunReport

Config = TypeVar("Config")
EXIT_OK, EXIT_FAILED, EXIT_USER, EXIT_QUARANTINE = 0, 1, 2, 3
"""Exit codes: success; failure; a mistake of the user; finished, with more in quarantine than allowed."""


def settings_of(options: argparse.Namespace, kind: type[Config]) -> Config:
    """Return the settings that the flags gave.

    Raises:
        ConfigError: naming a flag that is missing or out of range.
    """
    from atlas_ray.settings import COMMAND_LINE, build_settings, flags_given

    return build_settings(kind, flags_given(options, kind), COMMAND_LINE)


def tell_already_done(report: "RunReport") -> None:
    """Print that the output holds a finished run of these settings, if it does."""
    if report.already_done:
        print(f"{report.output} holds this run, finished; nothing to do")


def run_exit(command: str, report: "RunReport", limit: float) -> int:
    """Return the exit code of a run over pictures; print how many failures a retry may mend."""
    from atlas_ray.runs.run_record import may_pass

    if count := may_pass(report.run):
        text = f"{count} pictures failed for reasons that may have passed; the same command with --retry-failed"
        print(f"atlas-ray {command}: {text} asks for them again", file=sys.stderr)
    return quarantine_exit(command, report.quarantined_fraction, limit)


def plan_exit(command: str, options: argparse.Namespace, config: Any) -> int | None:
    """Plan a run if the flags of `PlanConfig` ask for it, print the plan, and return the exit code; else None."""
    from atlas_ray.runtime.settings import PlanConfig

    how = settings_of(options, PlanConfig)
    if not how.plan:
        return None
    from atlas_ray.pipelines.plan import PLANS
    from atlas_ray.reports.plan import print_plan

    plan = PLANS[command](config, how)
    print_plan(plan, as_json=how.json)
    return quarantine_exit(command, plan.refused_fraction, config.max_quarantine_fraction, what="tried pictures")


def quarantine_exit(command: str, fraction: float, limit: float, *, what: str = "pictures") -> int:
    """Return the exit code for a share of quarantined items; print it if it is over the limit."""
    if fraction <= limit:
        return EXIT_OK
    print(f"atlas-ray {command}: {fraction:.1%} of the {what} are in quarantine, over {limit:.1%}", file=sys.stderr)
    return EXIT_QUARANTINE
