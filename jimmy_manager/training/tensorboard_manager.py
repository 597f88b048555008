"""Logging for TensorBoard, with tags and types of values that are declared beforehand."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jimmy_manager import modes
from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.nesting import flattened
from jimmy_manager.training.tensorboard_values import TYPES, ValueType, close_figures, described, is_scalar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

_QUEUE = 1000
_RETRY_S = 60.0


class TensorBoardManager:
    """Writes events below ``log_dir``, each under one of ``tags``, whose values are of one of ``value_types``.

    ``value_types`` are ``scalar``, ``figure``, ``histogram``, ``image`` and ``text``: one for each tag, or one word for
    all. With ``log_dir=None`` nothing is written and TensorBoard is never imported. Where training resumes,
    ``purge_step`` is its first step: what an interrupted attempt has logged from there on is shown no longer.

    Writing is done by a thread of TensorBoard's, and logging never ends a training that has begun. Where the disk is
    full or the file system fails, a warning goes to the log, events of the next ``retry_s`` seconds are dropped, and
    then a new file is begun beside the old one; up to a thousand events from before the failure may be lost as well.
    What cannot be drawn is left out with a warning. Wrong tags and types are errors, always.

    Raises ConfigError where ``log_dir`` cannot be written to begin with.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None, tags: Iterable[str] = (),
        value_types: str | Iterable[str] = "scalar", *, purge_step: int | None = None, flush_s: float = 30.0,
        retry_s: float = _RETRY_S, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self._types: dict[str, ValueType] = {}
        tags = [tags] if isinstance(tags, str) else list(tags)
        types = [value_types] * len(tags) if isinstance(value_types, str) else list(value_types)
        if len(tags) != len(types):
            raise ConfigError(f"there are {len(tags)} tags and {len(types)} value_types; give one type for each tag")
        for tag, value_type in zip(tags, types, strict=True):
            self.register(tag, value_type)
        self._flush_s = flush_s
        self._retry_s = retry_s
        self._clock = clock
        self._retry_at = math.inf
        self._dropped = 0
        self._unshown: set[str] = set()
        self._has_hparams = self._is_closed = False
        self._writer: SummaryWriter | None = None
        if self.log_dir is not None:
            try:
                # TensorBoard purges at each recorded start but the first, so the very first needs one as well.
                self._open(0 if purge_step is None and _is_fresh(self.log_dir) else purge_step)
            except OSError as error:
                raise ConfigError(
                    f"cannot log to {self.log_dir!r}: {error}; give another log_dir, or None to log nothing"
                ) from error

    @property
    def writer(self) -> SummaryWriter | None:
        """PyTorch's ``SummaryWriter``, for all else that it can; None while nothing is written."""
        return self._writer

    @property
    def tags(self) -> dict[str, str]:
        """The registered tags with the names of their types."""
        return {tag: value_type.name for tag, value_type in self._types.items()}

    def register(self, tag: str, value_type: str = "scalar") -> None:
        """Declare one more tag; one that is there already keeps its type, and another is an error."""
        if value_type not in TYPES:
            raise ConfigError(f"value type {value_type!r} of tag {tag!r} is unknown; there are {', '.join(TYPES)}")
        if not isinstance(tag, str) or not tag or tag in ("self", "step"):
            raise ConfigError(f"tag {tag!r} cannot be used; take a name other than self and step")
        if tag in self._types and self._types[tag].name != value_type:
            raise ConfigError(f"tag {tag!r} is a {self._types[tag].name} already; {value_type} needs another tag")
        self._types[tag] = TYPES[value_type]

    def log(self, step: int, **values: Any) -> None:
        """Write ``values``, by tag, at ``step``; tags with a slash go in as ``**{'Train/Main': loss}``.

        scalar: a number, or a 0-d tensor, which is read back and so waits for its device. figure: a matplotlib Figure
        or a list of them; they are closed, whether or not they could be written. histogram: numbers of any shape;
        those that are not finite are left out. image: (H, W), (C, H, W) or a batch (B, C, H, W) of 1, 3 or 4
        channels, uint8 or floats from 0 to 1. text: a string, shown as Markdown.

        Raises UnknownField for a tag that is not registered, ConfigError for a value of another type or when closed.
        """
        try:
            for tag, value in values.items():
                value_type = self._types.get(tag) or self._unknown(tag)
                if self.log_dir is not None and not value_type.accepts(value):
                    raise ConfigError(
                        f"tag {tag!r} takes {value_type.takes}, and was given {described(value)}; register another tag"
                    )
            if self._can_write(len(values)):
                for tag, value in values.items():
                    self._write(tag, self._types[tag], value, step)
        finally:
            for value in values.values():
                close_figures(value)

    def log_hparams(self, config: Mapping[str, Any], metrics: Mapping[str, Any] | None = None) -> None:
        """Write a configuration, flattened to dotted names, for the HPARAMS page, in the same file as all else.

        Every scalar tag of the run is a metric of that page without being named here; ``metrics`` are further ones,
        such as the best loss, written as scalars at step 0. The first configuration of a run is the one that counts.
        ``close`` marks the run as finished.
        """
        names = {str(name): value for name, value in (metrics or {}).items()}
        for name, value in names.items():
            if name in self._types:
                raise ConfigError(f"metric {name!r} is a tag that is logged already; name it otherwise")
            if not is_scalar(value):
                raise ConfigError(f"metric {name!r} is {described(value)}; it must be {TYPES['scalar'].takes}")
        if not self._can_write(1 + len(names)):
            return
        from jimmy_manager.training.tensorboard_hparams import add_start

        self._has_hparams = True
        self._attempt(lambda writer: add_start(writer, flattened(config)))
        for name, value in names.items():
            self._write(name, TYPES["scalar"], value, 0)

    def flush(self) -> None:
        """Return when all that was logged so far is with the operating system."""
        if self._writer is not None:
            self._attempt(lambda writer: writer.flush())

    def close(self, *, is_finished: bool = True) -> None:
        """Write what is left and end the thread; may be called any number of times."""
        self._is_closed = True
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if self._has_hparams and is_finished:
                from jimmy_manager.training.tensorboard_hparams import add_end

                add_end(writer)
            writer.close()
        except OSError as error:
            self._warn(error)
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_finished=kind is None)

    def _can_write(self, events: int) -> bool:
        """Whether there is a writer, or after a failure one again; else that many events are dropped."""
        if self._is_closed:
            raise ConfigError(f"the log in {self.log_dir!r} is closed; log before close(), or make another manager")
        if self._writer is not None or self.log_dir is None:
            return self._writer is not None
        if self._clock() >= self._retry_at:
            try:
                _probe(self.log_dir)
                self._open(None)
                log.warning("logging to %s goes on; %d events were dropped", self.log_dir, self._dropped)
                self._dropped = 0
                return True
            except OSError as error:
                self._retry_at = self._clock() + self._retry_s
                log.debug("still no logging to %s: %s", self.log_dir, error)
        self._dropped += events
        return False

    def _open(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        log_dir = str(self.log_dir)
        modes.make_folders(log_dir)
        self._writer = SummaryWriter(log_dir, purge_step=purge_step, max_queue=_QUEUE, flush_secs=self._flush_s)
        for name in _event_files(log_dir):
            modes.share_file(os.path.join(log_dir, name))
        # The thread is a daemon: at the end of a process that did not close, its queue would be lost.
        self._finalizer = weakref.finalize(self, _close, self._writer, os.getpid())

    def _write(self, tag: str, value_type: ValueType, value: Any, step: int) -> None:
        try:
            self._attempt(lambda writer: value_type.write(writer, tag, value, step))
        except Exception as error:  # what cannot be drawn has no say in the training
            if tag not in self._unshown:
                self._unshown.add(tag)
                log.warning("%s %r of step %s is left out: %s", value_type.name, tag, step, error, exc_info=error)

    def _attempt(self, write: Callable[[SummaryWriter], None]) -> None:
        if self._writer is None:
            self._dropped += 1
            return
        try:
            write(self._writer)
        except OSError as error:
            # Its thread has ended and its last record may be torn, so nothing may follow in that file.
            self._finalizer()
            self._writer = None
            self._retry_at = self._clock() + self._retry_s
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        log.warning("logging to %s failed, and training goes on without it: %s", self.log_dir, error)

    def _unknown(self, tag: str) -> ValueType:
        near = get_close_matches(tag, self._types, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._types) or 'none'}; register it"
        raise UnknownField(f"unknown tag {tag!r} of TensorBoard; {advice}")


def _close(writer: SummaryWriter, pid: int) -> None:
    """Write what is left; not in a fork of the process that has the thread."""
    if os.getpid() != pid:
        return
    try:
        writer.close()
    except OSError as error:
        log.debug("the rest of the log could not be written: %s", error)


def _probe(log_dir: str) -> None:
    """Raise OSError where nothing can be written; without a trace, unlike a writer of TensorBoard's that fails."""
    modes.make_folders(log_dir)
    with tempfile.TemporaryFile(dir=log_dir) as file:
        file.write(b"0" * 65536)
        file.flush()
        os.fsync(file.fileno())


def _is_fresh(log_dir: str) -> bool:
    return not (os.path.isdir(log_dir) and _event_files(log_dir))


def _event_files(log_dir: str) -> list[str]:
    return [name for name in os.listdir(log_dir) if "tfevents" in name]
