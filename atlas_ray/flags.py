"""A parser of flags that refuses one given twice unless it may be repeated; argparse keeps the last value."""

import argparse
from typing import Any


class Several(argparse.Action):
    """An action for a flag that may be repeated; it joins the values with commas."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        """Add a value."""
        before = getattr(namespace, self.dest, "")
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


REPEATABLE = (Several, argparse._AppendAction)


class FlagParser(argparse.ArgumentParser):
    """A parser that refuses a flag given twice, unless it may be repeated."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, and forget the flags of an earlier call."""
        self._given: set[argparse.Action] = set()
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: argparse.Action, arg_strings: Any) -> Any:
        # argparse calls this each time that it meets an argument, whatever its kind.
        if action.option_strings and action in self._given and not isinstance(action, REPEATABLE):
            raise argparse.ArgumentError(action, "given twice; it takes one value")
        self._given.add(action)
        return super()._get_values(action, arg_strings)
