"""The one exception for a user's mistake. Pure Python, so that `edgeav.runtime` may import it on a Pi."""

from __future__ import annotations


class EdgeavError(Exception):
    """A user's mistake. Its message is complete: what is wrong, where, what is allowed, what to do next.

    The command line prints it without a traceback and exits with 2.
    """


def needs(extra: str, package: str) -> EdgeavError:
    """The error for a missing optional `package`, with the command that installs it."""
    return EdgeavError(f"{package} is not installed. To install it: pip install 'edgeav[{extra}]'")
