"""What every suite in Python shares: a tyr in front of a mock-llm."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import processes  # noqa: E402


@pytest.fixture
def stack(request):
    """Two processes of this test's own, with their logs shown when it failed."""
    stack = processes.Stack()
    yield stack
    report = getattr(request.node, "report", None)
    if report is not None and report.failed:
        print(stack.tyr.process.log.read_text(errors="replace")[-6000:])
    stack.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.report = report
