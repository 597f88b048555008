"""``JimmyModel``: a module that knows its losses, its optimizer and how to take a step."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jimmy_manager.devices import autocast_dtype, getAutoCast
from jimmy_manager.errors import ConfigError, HookError
from jimmy_manager.models.cost import Cost, computation_cost
from jimmy_manager.models.load_report import LoadReport, load_matching
from jimmy_manager.models.weight_average import WeightAverage
from jimmy_manager.state_files import load_state, save_state

_WRITTEN_OVER = {
    "optimizer": "give optimizer_cls and optimizer_args to super().__init__(), or define an initialize() of your own",
    "scaler": "choose another name",
    "ema": "choose another name",
}

Losses = Mapping[str, Tensor | float]
Step = tuple[Losses, dict[str, Any]]


class Peers(Protocol):
    """The other processes that train the same model on other rows of each batch; ``weight`` is the part of ours."""

    weight: float

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by the sum over all processes."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        ...


class JimmyModel(nn.Module):
    """Base of models: subclass it, define ``forward`` and, where the loss is another one, the steps.

    ``trainStep``, ``evalStep`` and ``testStep`` take the dictionary that a dataset yields and return
    ``(losses, outputs)``: for each name in ``train_loss_names`` or ``eval_loss_names`` a float or, better, a 0-d
    tensor, which nobody waits for. One name ending in ``/Main``, else the first, is the main loss: it drives the
    scheduler and chooses ``best.pth``. As they stand the steps compute ``criterion(self(data), target)``, cross-entropy
    of logits (B, C, ...) and classes (B, ...). Write ``evalStep`` or ``testStep``: each stands in for the other.

    Args:
        optimizer_cls, optimizer_args: what `initialize` builds; Adam with a rate of 1e-3 by default.
        mixed_precision: see `getAutoCast`. With ``'fp16'`` gradients are scaled, from 2**14; an optimizer that cannot
            be fused (all but Adam, AdamW, SGD and Adagrad) then waits for the GPU in each step.
        compile_model: compile in place; the names in ``state_dict()`` stay the same.
        clip_grad: the largest norm of all gradients together; 0 for any.
        accumulate: how many calls of `backwardOptimize` make one step of the optimizer, with the mean of their
            gradients; what an epoch leaves over makes a step of its own.
        ema_decay: keep an exponential moving average of the weights, ``average = decay * average + (1 - decay) *
            weight`` after each step; evaluation and ``best.pth`` then use it. 0 for none.

    """

    def __init__(
        self, optimizer_cls: Callable[..., torch.optim.Optimizer] | None = None,
        optimizer_args: Mapping[str, Any] | None = None, mixed_precision: bool | str = False,
        compile_model: bool = False, clip_grad: float = 0.0, *, accumulate: int = 1, ema_decay: float = 0.0,
    ) -> None:
        super().__init__()
        _check(mixed_precision, clip_grad, accumulate, ema_decay)
        self.optimizer_cls = optimizer_cls or torch.optim.Adam
        self.optimizer_args = dict(optimizer_args or {})
        self.mixed_precision = mixed_precision
        self.compile_model = compile_model
        self.clip_grad = clip_grad
        self.accumulate = accumulate
        self.ema_decay = ema_decay
        self.train_loss_names = ["Train/Main"]
        self.eval_loss_names = ["Eval/Main"]
        self.criterion: nn.Module = nn.CrossEntropyLoss()
        self.optimizer: torch.optim.Optimizer | None = None
        self.scaler: torch.amp.GradScaler | None = None
        self.ema: WeightAverage | None = None
        self.skip_non_finite = False
        self.skipped_steps = 0
        self.peers: Peers | None = None
        self._pending = 0
        self._in_eval_step = False
        self._is_initialized = False

    def initialize(self) -> None:
        """Make the optimizer, and compile the model if asked to; call it once the model is on its device."""
        self._check_names()
        device = next((each.device for each in self.parameters()), None)
        if device is None:
            raise HookError(f"{type(self).__name__} has no parameters to train; define its layers in __init__")
        is_fp16 = autocast_dtype(device, self.mixed_precision) is torch.float16
        args = dict(self.optimizer_args)
        if is_fp16 and device.type == "cuda" and "foreach" not in args and _can_be_fused(self.optimizer_cls):
            # Only a fused optimizer skips a step with infinite gradients without waiting for the GPU.
            args.setdefault("fused", True)
        self.optimizer = self.optimizer_cls(self.parameters(), **args)
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**14) if is_fp16 else None
        self.ema = WeightAverage(self, self.ema_decay) if self.ema_decay else None
        self._pending = 0
        if self.compile_model:
            self.compile()

    def trainStep(self, data_dict: Mapping[str, Any]) -> Step:
        """Take one training step on a batch; return its losses and outputs."""
        loss, output = self._judge(data_dict)
        self.backwardOptimize(loss)
        return {self.train_loss_names[0]: loss.detach()}, {"output": output.detach()}

    def evalStep(self, data_dict: Mapping[str, Any]) -> Step:
        """Judge one batch during training; a figure may be returned as output ``fig``. `testStep` unless overridden."""
        if type(self).testStep is not JimmyModel.testStep:
            return self.testStep(data_dict)
        return self._plain_step(data_dict)

    def testStep(self, data_dict: Mapping[str, Any]) -> Step:
        """Judge one batch after training; `evalStep` unless overridden."""
        if type(self).evalStep is JimmyModel.evalStep or self._in_eval_step:
            return self._plain_step(data_dict)
        self._in_eval_step = True  # an evalStep that builds on testStep comes back here, for the plain step
        try:
            return self.evalStep(data_dict)
        finally:
            self._in_eval_step = False

    def backwardOptimize(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` (0-d), and after every ``accumulate`` of them take a step of the optimizer."""
        if self.optimizer is None:
            raise HookError(f"{type(self).__name__} has no optimizer yet; call initialize() before training it")
        if self.skip_non_finite and self._is_bad(loss):
            self.skipped_steps += 1
        else:
            if self.peers is not None:
                loss = loss * self.peers.weight
            if self.accumulate > 1:
                loss = loss / self.accumulate
            if self.scaler is not None:
                loss = self.scaler.scale(loss)
            loss.backward()
        if self.accumulate > 1:  # only then: to set an attribute of a module takes microseconds
            self._pending += 1
            if self._pending < self.accumulate:
                return
        self._optimize(self.optimizer)

    def finish_accumulation(self) -> None:
        """Take a step with the mean of the gradients that wait for one, if any do; called at the end of an epoch."""
        if self.optimizer is None or not self._pending:
            return
        for each in self.parameters():
            if each.grad is not None:
                each.grad *= self.accumulate / self._pending
        self._optimize(self.optimizer)

    def stateful_attributes(self) -> dict[str, Any]:
        """Return what else has a state that training must resume: a second optimizer, a scheduler, a replay buffer.

        Every attribute with ``state_dict`` and ``load_state_dict`` that is no module (those are in the weights); the
        trainer saves them as they are.
        """
        own = ("optimizer", "scaler", "ema")
        return {
            name: value
            for name, value in vars(self).items()
            if name not in own and not isinstance(value, type)
            and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
        }  # fmt: skip

    @property
    def is_accumulating(self) -> bool:
        """Whether gradients wait for their step, which no checkpoint could hold."""
        return self._pending > 0

    @property
    def lr(self) -> float:
        """The learning rate of the first parameter group."""
        if self.optimizer is None:
            raise HookError(f"{type(self).__name__} has no learning rate yet; call initialize() first")
        return float(self.optimizer.param_groups[0]["lr"])

    def saveTo(self, path: str | os.PathLike[str]) -> None:
        """Save the weights to a file, atomically."""
        save_state(self.state_dict(), path)

    def loadFrom(self, path: str | os.PathLike[str]) -> LoadReport:
        """Load the weights that fit from a file of `saveTo` or of the trainer, and report what was not loaded.

        Raises ``CheckpointError`` where nothing fits, or the file is damaged.
        """
        state = load_state(path)
        weights = state["model"] if isinstance(state.get("model"), dict) else state
        report = load_matching(self, weights, source=str(path))
        if self.ema is not None:
            self.ema.restart()
        return report

    def getCompCost(self, *inputs: Any, **kwargs: Any) -> Cost:
        """Count the parameters, and the floating-point operations of ``self(*inputs, **kwargs)``."""
        return computation_cost(self, *inputs, **kwargs)

    def _check_names(self) -> None:
        """Refuse what a constructor has put under names that `initialize` writes over."""
        for name, advice in _WRITTEN_OVER.items():
            if getattr(self, name) is not None and not self._is_initialized:
                raise HookError(
                    f"self.{name} of {type(self).__name__}, of type {type(getattr(self, name)).__name__}, would be "
                    f"written over by initialize(); {advice}"
                )
        self._is_initialized = True

    def _judge(self, data_dict: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        try:
            data, target = data_dict["data"], data_dict["target"]
        except KeyError:
            raise HookError(
                f"the steps of {type(self).__name__} read 'data' and 'target', but the batch has {list(data_dict)}; "
                "write trainStep and evalStep for it"
            ) from None
        if not self.mixed_precision:
            output = self(data)
            return self.criterion(output, target), output
        with getAutoCast(data, self.mixed_precision):
            output = self(data)
            return self.criterion(output, target), output

    @torch.no_grad()
    def _plain_step(self, data_dict: Mapping[str, Any]) -> Step:
        loss, output = self._judge(data_dict)
        return {self.eval_loss_names[0]: loss}, {"output": output}

    def _optimize(self, optimizer: torch.optim.Optimizer) -> None:
        if self._pending:
            self._pending = 0
        if self.skip_non_finite and all(each.grad is None for each in self.parameters()):
            return  # peers would make zeros of them, and momentum would move the weights
        if self.peers is not None:
            self.peers.sum_gradients(self.parameters())
        if self.clip_grad > 0:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.parameters(), self.clip_grad)
        if self.scaler is None:
            if self.skip_non_finite and self._has_bad_gradients():
                self.skipped_steps += 1
                optimizer.zero_grad()
                return
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update()

    def _has_bad_gradients(self) -> bool:
        # A finite loss may have them, as the root of zero does. With peers they are the sums, the same in all.
        norm = nn.utils.get_total_norm(each.grad for each in self.parameters() if each.grad is not None)
        return not torch.isfinite(norm).item()

    def _is_bad(self, loss: Tensor) -> bool:
        is_bad = not torch.isfinite(loss).item()
        return is_bad if self.peers is None else self.peers.any(is_bad)


def _can_be_fused(optimizer_cls: Callable[..., torch.optim.Optimizer]) -> bool:
    return "fused" in inspect.signature(optimizer_cls).parameters


def _check(mixed_precision: bool | str, clip_grad: float, accumulate: int, ema_decay: float) -> None:
    autocast_dtype("cpu", mixed_precision)
    if clip_grad < 0:
        raise ConfigError(f"clip_grad is {clip_grad!r}; it must be a norm above 0, or 0 for no clipping")
    if type(accumulate) is not int or accumulate < 1:
        raise ConfigError(f"accumulate is {accumulate!r}; it must be a number of batches from 1")
    if not 0 <= ema_decay < 1:
        raise ConfigError(f"ema_decay is {ema_decay!r}; it must be in [0, 1), e.g. 0.999, or 0 for no average")
