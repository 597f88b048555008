"""A trained model for those who have neither its job nor its store: weights and configuration in a folder.

::

    model.safetensors     every entry of the model's state_dict under its own name, in its own dtype
    config.yaml           key, job, epoch, configuration, metrics, and the circumstances of the run
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives.files import store_error
from jimmy_manager.errors import CheckpointError, HookError, MissingExtra, StoreError
from jimmy_manager.nesting import flattened
from jimmy_manager.yaml12 import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jimmy_manager.manager.manager import Manager

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"


def export(manager: Manager, key: str, path: str | os.PathLike[str], device: str | None = None) -> Path:
    """Write the model that ``manager.fetch(key, device)`` gives into the new folder ``path``, whole or not at all.

    Names that share their memory are written each with all of it, so that ``load_state_dict`` of what
    ``safetensors.torch.load_file`` reads is strict. Raises ``StoreError`` where ``path`` exists, ``MissingExtra``
    without safetensors, and ``CheckpointError`` for a state that is not of plain tensors.
    """
    save = _safetensors()
    target = Path(path).absolute()
    _refuse_existing(target)
    key = manager.store.resolve(key)
    weights = _weights(manager.fetch(key, device), manager)
    text = dump(_description(manager, key))
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        scratch.mkdir(parents=True)
        try:
            save(weights, str(scratch / WEIGHTS), {"format": "pt"})
            (scratch / CONFIG).write_text(text, "utf-8")
            for each in (scratch / WEIGHTS, scratch / CONFIG, scratch):
                _sync(each)
            _refuse_existing(target)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise store_error("write", str(target), error) from error
    return target


def _safetensors() -> Any:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtra(
            "export_model needs safetensors, which is not installed: pip install 'jimmy_manager[export]'"
        ) from error
    return save_file


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise StoreError(f"{target} exists already; name a folder that does not, nothing is overwritten")


def _weights(model: Any, manager: Manager) -> dict[str, Any]:
    """The state of ``model`` as contiguous tensors on the CPU, of which no two share memory."""
    import torch

    if model is manager or not hasattr(model, "state_dict"):
        raise HookError(f"{type(manager).__name__} has no self.model with a state_dict; there is nothing to export")
    weights, taken = {}, set()
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_quantized:
            kind = value.layout if isinstance(value, torch.Tensor) else type(value).__name__
            raise CheckpointError(f"the model's state {name!r} is of {kind}, and safetensors holds plain tensors only")
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        weights[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return weights


def _description(manager: Manager, key: str) -> dict[str, Any]:
    stats = manager.stats[key]
    return {
        "key": key,
        "job": manager.store.info.manager,
        "epoch": manager.epoch,
        "config": manager.store.config(key).asdict(),
        "metrics": _metrics(manager.store.previews[key]),
        "run": {name: value for name, value in stats["run"].items() if name in ("git", "versions")},
    }


def _metrics(preview: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a preview by dotted name; NaN is nothing, and an infinity is spelled, as in all output."""
    numbers = {name: value for name, value in flattened(preview) if isinstance(value, (int, float))}
    return {name: value if math.isfinite(value) else _spelled(value) for name, value in numbers.items()}


def _spelled(value: float) -> str | None:
    return None if math.isnan(value) else str(value)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
