"""What the commands share: settings from flags, and how a command ends."""

import argparse
import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from atlas_ray.runs.run_record import RunReport

Config = TypeVar("Config")
EXIT_OK, EXIT_FAILED, EXIT_USER, EXIT_QUARANTINE = 0, 1, 2, 3
"""All well; anything else; a mistake in what was given; finished with more in quarantine than allowed."""


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
    """Return how a run over pictures ends, and say what of it may be asked for again."""
    from atlas_ray.runs.run_record import may_pass

    if count := may_pass(report.run):
        text = f"{count} pictures failed for reasons that may have passed; the same command with --retry-failed"
        print(f"atlas-ray {command}: {text} asks for them again", file=sys.stderr)
    return quarantine_exit(command, report.quarantined_fraction, limit)


def quarantine_exit(command: str, found: float, limit: float, *, what: str = "pictures") -> int:
    """Return how a command ends by the share that is in quarantine, and say so where it is too much."""
    if found <= limit:
        return EXIT_OK
    print(f"atlas-ray {command}: {found:.1%} of the {what} are in quarantine, over {limit:.1%}", file=sys.stderr)
    return EXIT_QUARANTINE
