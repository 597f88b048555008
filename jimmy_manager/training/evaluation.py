"""What a model loses on a dataset: means over the samples, or each sample's own losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from typing import Any

import torch
from torch import Tensor

from jimmy_manager.errors import HookError
from jimmy_manager.models.jimmy_model import JimmyModel
from jimmy_manager.training.loss_meter import LossMeter
from jimmy_manager.training.process_group import ProcessGroup
from jimmy_manager.training.tensorboard_values import close_figures

Batch = Mapping[str, Any]


@contextmanager
def evaluating(model: JimmyModel) -> Iterator[None]:
    """Evaluation mode, no gradients, and the averaged weights where there are some; everything back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if model.ema is None:
                yield
            else:
                with model.ema.applied():
                    yield
    finally:
        model.train(was_training)


def meter_of(model: JimmyModel, step: str = "evalStep") -> LossMeter:
    """Return a meter for what ``model.evalStep`` or ``model.testStep`` returns."""
    return LossMeter(model.eval_loss_names, f"{type(model).__name__}.{step}", "eval_loss_names", read_every_s=5.0)


def mean_losses(
    model: JimmyModel, dataset: Any, on_figure: Callable[[Any], None] | None = None,
    group: ProcessGroup | None = None,
) -> dict[str, float]:
    """Return the mean of each declared evaluation loss over the samples of ``dataset``; NaN where it has none.

    ``on_figure`` is given the first output ``fig``; each further one is closed, lest open figures fill the memory.
    The processes of a ``group`` share every batch. Without one, ``HookError`` for a loss that is a vector, but not of
    the samples of its batch.
    """
    meter = meter_of(model)
    sums, total, is_shown = [0.0] * len(meter.names), 0.0, False
    counts: list[float] = []

    def gather() -> None:
        nonlocal total
        for row, count in zip(meter.read(), counts, strict=True):
            for place, value in enumerate(row):
                sums[place] += value * count
            total += count
        counts.clear()

    with evaluating(model):
        for batch, count in _counted(dataset, group):
            step = model.evalStep(batch)
            meter.add(step)
            if group is None:
                _check_rows(step[0], batch, count, meter.names, type(model).__name__)
            counts.append(count)
            if (figure := _figure_of(step)) is not None:
                if on_figure is None or is_shown:
                    close_figures(figure)
                else:
                    on_figure(figure)
                is_shown = True
            if meter.is_due:
                gather()
        gather()
    if group is not None:
        (*sums, total), = group.sum([[*sums, total]])
    return {name: value / total if total else nan for name, value in zip(meter.names, sums, strict=True)}


def sample_losses(model: JimmyModel, dataset: Any) -> dict[str, list[float]]:
    """Return the losses of each sample by ``testStep``, in the order of ``dataset``.

    A ``testStep`` that returns (B,) tensors gives them at once; of one that returns means every sample is judged as a
    batch of its own, which takes as many steps as there are samples.
    """
    meter = meter_of(model, "testStep")
    columns: dict[str, list[float]] = {name: [] for name in meter.names}
    with evaluating(model):
        for batch, count in _counted(dataset):
            rows = _rows_of(_judged(model, batch), count, meter)
            if rows is None:
                for one in _singles(batch, count):
                    meter.add(_judged(model, one))
                rows = meter.read()
            for row in rows:
                for name, value in zip(meter.names, row, strict=True):
                    columns[name].append(value)
    return columns


def _counted(dataset: Any, group: ProcessGroup | None = None) -> Iterator[tuple[Batch, float]]:
    for position, batch in enumerate(dataset.batches()):
        count = dataset.samples_in(position)
        if group is None:
            yield batch, count
        else:
            share, weight = group.share(batch, count)
            yield share, weight * count


def _judged(model: JimmyModel, batch: Batch) -> Any:
    step = model.testStep(batch)
    close_figures(_figure_of(step))  # an evalStep may draw one, which nobody looks at here
    return step


def _figure_of(step: Any) -> Any:
    outputs = step[1] if isinstance(step, tuple) and len(step) == 2 else None
    return outputs.get("fig") if isinstance(outputs, Mapping) else None


def _rows_of(step: Any, count: float, meter: LossMeter) -> list[list[float]] | None:
    """The rows of a step that returned (B,) tensors alone, or was of one sample; None where it returned means."""
    meter.add(step)
    (means,) = meter.read()
    if count == 1:
        return [means]
    losses = [step[0][name] for name in meter.names]
    if not all(isinstance(value, Tensor) and value.shape == (count,) for value in losses):
        return None
    return [list(row) for row in zip(*(value.tolist() for value in losses), strict=True)]


def _check_rows(losses: Mapping[str, Any], batch: Batch, count: float, names: Sequence[str], owner: str) -> None:
    for name in names:
        loss = losses[name]
        if not isinstance(loss, Tensor) or loss.ndim != 1 or len(loss) in (1, count):
            continue
        # A batch sampler may make batches of other sizes than were counted on: then the loss may well be right.
        if any(_has_rows(value, count) for value in batch.values()):
            raise HookError(
                f"{owner}.evalStep returned {name!r} with {len(loss)} values for a batch of {count} samples; return "
                "one a sample, or their mean"
            )


def _singles(batch: Batch, count: float) -> Iterator[Batch]:
    """Cut a batch into batches of one sample; what has no entry for each sample goes into all of them."""
    if not any(_has_rows(value, count) for value in batch.values()):
        raise HookError(f"a batch of {count} samples has no tensor with as many rows: {sorted(batch)}")
    for row in range(int(count)):
        yield {
            name: value[row : row + 1] if _has_rows(value, count) else value for name, value in batch.items()
        }  # fmt: skip


def _has_rows(value: Any, count: float) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == count
    return isinstance(value, list | tuple) and len(value) == count
