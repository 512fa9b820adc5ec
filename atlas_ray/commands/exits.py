"""What the commands end with."""

EXIT_OK, EXIT_FAILED, EXIT_USER, EXIT_QUARANTINE = 0, 1, 2, 3
"""All well; anything else; a mistake in what was given; finished with more in quarantine than allowed."""
COMMAND_LINE = "the command line"
