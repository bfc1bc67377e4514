"""A pytest plugin that writes each test's outcome as it comes, one JSON object a line, so that a killed run keeps them.

pytest -p benchmarks.outcomes --outcomes FILE
"""

import json
from pathlib import Path

import pytest


class _Outcomes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        why = "" if report.passed else _reason(report)
        with self.path.open("a") as file:
            file.write(json.dumps({"test": report.location[2], "outcome": report.outcome, "why": why}) + "\n")


def _reason(report: pytest.TestReport) -> str:
    """One line: why it was skipped, or the error."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).splitlines()[0][:200]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="file for each test's outcome")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("outcomes"):
        config.pluginmanager.register(_Outcomes(config.getoption("outcomes")))
