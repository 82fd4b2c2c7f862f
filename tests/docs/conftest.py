"""Prints how many commands the docs have, and what became of them."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts what the tests of the pages recorded, in whatever process they ran."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if getattr(report, "when", "") == "call"
    ]
    noted = [note for report in reports for note in report.user_properties]
    counts = {kind: [what for name, what in noted if name == kind] for kind in KINDS}
    if not any(counts.values()):
        return
    numbers = ", ".join(f"{len(found)} {kind}" for kind, found in counts.items())
    terminalreporter.write_sep("=", "commands and Python blocks of README and docs")
    terminalreporter.write_line(f"{sum(map(len, counts.values()))} found: {numbers}")
    for what in counts["skipped"]:
        terminalreporter.write_line(f"skipped: {what}")


KINDS = ("ran", "checked", "skipped")
"""Ran as it is or shorter; an installation, of which the extras were checked; not run."""
