"""Whether more is better: one answer by the words of a name, and none where they do not tell."""

from __future__ import annotations

import pytest

from jimmy_manager import better
from jimmy_manager.better import is_more_better

TOLD: dict[str, bool | None] = {
    **dict.fromkeys(["acc", "val_acc", "Acc", "Eval/acc", "valid.acc", "valAcc", "acc5", "acc@1", "top1"], True),
    **dict.fromkeys(["accuracy", "return", "reward", "auroc", "F1", "macro-f1", "mAP", "mAP50", "r2", "score"], True),
    **dict.fromkeys(["acc.mean", "f1/macro", "preview.acc"], True),
    **dict.fromkeys(["loss", "Eval/loss", "valLoss", "loss.valid", "accuracy_error", "acc.top1_err", "rmse"], False),
    **dict.fromkeys(["train_seconds", "time_to_acc", "perplexity", "nll", "MSE", "brier_score"], False),
    **dict.fromkeys(["epoch", "metres_eval", "", ".", "maple", "accident", "glossary", "losses.reward", "lr"], None),
}


@pytest.mark.parametrize(("name", "told"), TOLD.items())
def test_the_words_of_a_name_tell(name: str, told: bool | None) -> None:
    assert is_more_better(name) is told


def test_a_twin_that_looks_at_the_beginning_alone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(better, "_told_by", lambda part: part.startswith(("acc", "return")))
    assert [name for name, told in TOLD.items() if is_more_better(name) is not told]
