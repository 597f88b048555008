"""The judge of the stress tests finds what it is for: each kind of broken promise, made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from jimmy_manager import Store
from tests.stress.witness import Line, Witness, configurations, read_journals, reference, violations

EPOCHS = 2
CONFIGS = configurations(2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "journals").mkdir()
    report = Witness(str(tmp_path / "store"), tmp_path / "journals").batch(CONFIGS, EPOCHS)
    assert len(report.done) == 2
    return tmp_path


def judged(folder: Path, *more: Line, epochs: int = EPOCHS, stale_s: float = 0.0) -> set[str]:
    lines = [*read_journals(folder / "journals"), *more]
    found = violations(Store(folder / "store", read_only=True, stale_s=stale_s), lines, CONFIGS, epochs)
    return {violation.partition(":")[0] for violation in found}


def line_like(folder: Path, event: str) -> Line:
    return next(line for line in read_journals(folder / "journals") if line.event == event)


def test_runs_without_any_fault_break_no_promise(folder: Path) -> None:
    assert judged(folder) == set()


def test_the_reference_is_another_one_for_another_seed_or_length() -> None:
    assert len({reference(config, epochs) for config in CONFIGS for epochs in (0, 1, 2)}) == 5


def test_a_generation_that_two_took_is_found(folder: Path) -> None:
    assert judged(folder, line_like(folder, "took")._replace(token="another")) == {"two owners"}


def test_an_acknowledged_commit_that_the_result_lacks_is_found(folder: Path) -> None:
    acknowledged = line_like(folder, "acknowledged")._replace(mark="g1:gone:1")
    begun = acknowledged._replace(event="commits")
    assert judged(folder, begun, acknowledged) == {"outranked"}


def test_a_commit_that_began_after_a_takeover_and_was_acknowledged_is_found(folder: Path) -> None:
    took = line_like(folder, "took")
    assert judged(folder, took._replace(generation=2, at=took.at)) == {"late"}
    assert judged(folder, took._replace(generation=2, at=took.at - 60.0), stale_s=50.0) == {"late"}


def test_a_commit_may_be_acknowledged_while_a_listing_may_not_show_the_takeover_yet(folder: Path) -> None:
    took = line_like(folder, "took")
    assert judged(folder, took._replace(generation=2, at=took.at), stale_s=60.0) == set()


def test_a_run_that_is_finished_as_something_else_is_found(folder: Path) -> None:
    assert judged(folder, line_like(folder, "finished")._replace(generation=3)) == {"changed"}


def test_a_run_that_is_not_trained_to_the_end_is_found(folder: Path) -> None:
    assert judged(folder, epochs=EPOCHS + 1) == {"lost"}


def test_a_run_with_another_value_than_the_reference_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stress.witness.reference", lambda config, epochs: "another")
    assert judged(folder) == {"wrong"}


def test_a_result_whose_file_is_damaged_is_found(folder: Path) -> None:
    for checkpoint in (folder / "store" / "ckpts").rglob("*.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert judged(folder) == {"damaged"}
