from __future__ import annotations

import warnings

import pytest

from jimmy_manager.cli.warned import warnings_told


def fail() -> None:
    with warnings_told():
        for _ in range(2):
            warnings.warn("run a is shown in part:\n  \x1b[2J", stacklevel=1)
        raise ValueError("no")


def test_a_warning_is_told_once_and_spelled_out_also_where_an_error_follows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"):
        fail()
    assert capsys.readouterr().err == "warning: run a is shown in part:\n  \\x1b[2J\n"
