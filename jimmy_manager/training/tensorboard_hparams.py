"""The two summaries by which TensorBoard's HPARAMS page knows a run: its configuration, and that it has finished.

``SummaryWriter.add_hparams`` would write them to a new directory at each call, apart from the curves of the run, and
with a list of columns that hides every field which the first run lacks. Without that list all runs give the columns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_EXACT = 2**53


def add_start(writer: SummaryWriter, fields: Iterable[tuple[str, Any]]) -> None:
    """Write a configuration, given as dotted names and leaves."""
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, leaf in fields:
        value = shown(leaf)
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(info.hparams[name], f"{kind}_value", value)
    _add(writer, metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=info))


def add_end(writer: SummaryWriter) -> None:
    """Write that the run has finished."""
    info = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    _add(writer, metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info))


def shown(value: Any) -> bool | float | str:
    """Return a leaf of a configuration as TensorBoard can show it: a bool, a number or text.

    >>> [shown(value) for value in (True, 3, 1e-3, 'adam', None, [1, 2], 2**60, float)]
    [True, 3, 0.001, 'adam', 'None', '[1, 2]', '1152921504606846976', 'float']
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, bool | str | float) or (isinstance(value, int) and abs(value) <= _EXACT):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str)
    return value.__name__ if isinstance(value, type) else str(value)


def _add(writer: SummaryWriter, tag: str, data: Any) -> None:
    described = metadata.create_summary_metadata(data)
    summary = Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])
    # As each of its own methods does: `file_writer` is None once somebody has closed it.
    writer._get_file_writer().add_summary(summary)
