"""Prints findings in full: a rule that is broken in forty places shows all forty."""

from collections.abc import Sequence


def expect_none(findings: Sequence[str]) -> None:
    """Fail with every finding on a line of its own, or pass if there is none."""
    if findings:
        raise AssertionError("\n".join([f"{len(findings)} found:", *findings]))
