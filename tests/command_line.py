"""Run a command of `autoembed` inside the test's process, as a shell would."""

import sys

import pytest

from autoembed.cli import main


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `autoembed ARGUMENTS`; output goes to the test's stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["autoembed", *(str(argument) for argument in arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
