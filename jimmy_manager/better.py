"""Whether more of a metric is better, told by its name: one answer for ``best``, gc, figures and screens."""

from __future__ import annotations

import re

_MORE = {
    "acc", "accuracies", "accuracy", "auc", "auprc", "auroc", "bleu", "dice", "f1", "iou", "map", "miou", "precision",
    "psnr", "r2", "recall", "return", "returns", "reward", "rewards", "score", "scores", "ssim", "top1", "top10",
    "top5",
}  # fmt: skip
_LESS = {
    "bce", "brier", "cer", "err", "error", "errors", "fid", "loss", "losses", "mae", "mse", "nll", "perplexity", "ppl",
    "rmse", "seconds", "time", "wer",
}  # fmt: skip


def is_more_better(name: str) -> bool | None:
    """Whether a metric of this name should grow; None where its words do not tell.

    The last part of the name decides, else the one before it. Words of loss win over others: an ``accuracy_error`` is
    an error. A part that contradicts what stands above it tells nothing, such as the reward among ``losses``.

    >>> is_more_better("val_acc"), is_more_better("Eval/Acc"), is_more_better("top1_error"), is_more_better("metres")
    (True, True, False, None)
    >>> is_more_better("acc.mean"), is_more_better("loss.valid"), is_more_better("losses.reward")
    (True, False, None)
    """
    told = [told for part in re.split(r"[./]", name) if (told := _told_by(part)) is not None]
    if not told:
        return None
    return None if told[-1] and False in told else told[-1]


def _told_by(part: str) -> bool | None:
    words: set[str] = set()
    # valAcc is two words, but mAP one.
    for text in (part, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", part)):
        words |= set(re.findall(r"[a-z0-9]+", text.lower()))
    words |= {word.rstrip("0123456789") for word in words}  # acc5, mAP50
    return False if words & _LESS else True if words & _MORE else None
