"""``Manager``: what a researcher subclasses to train one configuration, a batch or a sweep."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn, SupportsIndex

from jimmy_manager import random_state
from jimmy_manager.archives.claims import LONGEST_LEASE_S
from jimmy_manager.archives.clock import Clock
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.store import Store
from jimmy_manager.config import Config, load_config
from jimmy_manager.errors import CheckpointError, ConfigError, HookError, NoRecord, Stopped
from jimmy_manager.grid import grid
from jimmy_manager.manager import job_module, job_time, pickling, progress, ranks, shares
from jimmy_manager.manager.admission import Admission
from jimmy_manager.manager.batch import Batch
from jimmy_manager.manager.code_changes import warn_of_changes
from jimmy_manager.manager.deadline import Deadline, Pace
from jimmy_manager.manager.keeping import Keeping
from jimmy_manager.manager.names import check_names
from jimmy_manager.manager.run import EpochPaused, Run
from jimmy_manager.manager.schedule import BatchReport, Fixed, Shuffled
from jimmy_manager.manager.worker import Worker
from jimmy_manager.signals import STOPPING, TIME_LIMIT, StopFlag
from jimmy_manager.signals import stop_signals as parse_signals
from jimmy_manager.targets import DEFAULT_TARGETS

_OLD_ARGUMENTS = ("s_path_len", "s_pause", "l_path_len", "l_pause")
_RANDOM = "random_state"


class Manager(Keeping):
    """Trains configurations and keeps their results in a store; subclass it and write ``train`` and ``eval``.

    For 5 epochs with ``eval_interval=2, save_interval=3`` the hooks are called in this order::

        get_config, setup, load_ckpt, (none there:) init_ckpt, eval, save_ckpt
        | train | train eval | train save_ckpt | train eval | train eval save_ckpt

    Attributes during a run: ``config``, ``key``, ``epoch`` (how many are behind the model), ``step`` (how many batches,
    where ``train`` counts them), ``ckpt``, ``preview``, ``device``. ``defaults`` may be set or filled at any time
    before a configuration is used.

    With ``verbose`` each batch tells of its progress on stderr every ``disp_interval`` epochs, with the number
    ``main_metric`` of the preview, else the first whose name begins with ``loss`` or ``acc``. ``progress`` may be set
    to an object of one's own.

    ``heartbeat_s`` and ``lease_s`` bound how soon another host takes over from a lost one. ``patience``
    (hours, deprecated) is an upper bound of the lease.

    ``time_limit`` is what `process`, `batch` and `sweep` may take in all from the first of them on: ``'4:00:00'`` and
    whatever else ``sbatch --time`` takes, minutes, or a timedelta. Where the Slurm job ends sooner, that counts. What
    could not be saved in time is not begun, and a training is saved in time. ``stop_signals`` stop it, too; on NCCL,
    which catches SIGUSR1 for itself, let Slurm send USR2. With ``requeue`` a Slurm job in which work was left after
    its time limit, SIGUSR1 or SIGUSR2 is requeued as the last thing that is done, after which Slurm ends the process;
    a function is called with the job in place of ``scontrol requeue``.
    """

    state: tuple[str, ...] = ()
    num_epochs: int | None = None
    default_config: ClassVar[str | None] = None
    choices: Any = None
    main_metric: ClassVar[str] = ""
    targets: tuple[str, ...] = ()
    strict: ClassVar[bool | None] = None
    pauses: ClassVar[bool] = False
    """Whether `train` looks at ``stop`` and may `pause` within an epoch, so that less than one is an advance."""

    def __init__(
        self, store_dir: str | os.PathLike[str] | None = "store",
        defaults: Mapping[str, Any] | str | os.PathLike[str] | None = None, *,
        eval_interval: int = 1, save_interval: int = 1, disp_interval: int = 1, verbose: bool = True,
        read_only: bool = False, device: str | None = None, threads: int | None = None, heartbeat_s: float = 15.0,
        lease_s: float = 120.0, key_len: int = 8, shared: str = "", max_crashes: int = 5, patience: float | None = None,
        stale_s: float | None = None, durable: bool = True, clock: Clock | None = None,
        time_limit: job_time.TimeLimit = None, requeue: job_time.Requeue = False,
        stop_signals: Iterable[str | int] = STOPPING, **old: Any,
    ) -> None:
        _accept_old(old)
        self._limit_s = job_time.limit_s(time_limit)
        signals = parse_signals(stop_signals)
        for argument, value in (("eval_interval", eval_interval), ("save_interval", save_interval)):
            if value < 1:
                raise ValueError(f"{argument} is {value!r}, it must be a number of epochs from 1")
        if patience is not None:
            warnings.warn("patience is deprecated; use lease_s, in seconds", DeprecationWarning, stacklevel=2)
        self.store = Store(
            store_dir, read_only=read_only, key_len=key_len, shared=shared, stale_s=stale_s, lease_s=lease_s,
            heartbeat_s=heartbeat_s, patience_s=LONGEST_LEASE_S if patience is None else patience * 3600,
            durable=durable, clock=clock,
        )
        self.defaults = load_config(defaults if defaults is not None else self._own_defaults())
        self.eval_interval = eval_interval
        self.save_interval = save_interval
        self.disp_interval = disp_interval
        self.verbose = verbose
        self.max_crashes = max_crashes
        self.threads = shares.threads(threads)
        self.requeue = requeue
        self.stop = StopFlag(signals, monotonic=self.store.claims.clock.monotonic)
        self.progress = progress.Progress()
        self._team: ranks.Alone = ranks.Alone()
        self.config = Config()
        self.key = ""
        self.epoch = 0
        self.step = 0
        self.ckpt: dict[str, Any] = {}
        self.preview: dict[str, Any] = {}
        self._device = device
        self._deadline: Deadline | None = None
        self._pace = Pace(self.store.claims.clock.monotonic)
        self._run: Run | None = None
        self._absent: NoRecord | None = None
        self._random: dict[str, Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A job's name is inherited, but the ready Managers of this package are not jobs.
        if not cls.name and not cls.__module__.startswith(f"{__name__.partition('.')[0]}."):
            cls.name = cls.__name__

    def __getstate__(self) -> dict[str, Any]:
        # The time that is left, and how fast this host is, mean nothing elsewhere; nor can a display go there.
        pace = Pace(self.store.claims.clock.monotonic)
        return self.__dict__ | {"_deadline": None, "_pace": pace, "progress": progress.Progress()}

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        reduced, home = super().__reduce_ex__(protocol), pickling.home_of(type(self))
        return reduced if home is None else (pickling.blank, home, *reduced[2:])

    # What a user overrides

    def get_config(self, config: Mapping[str, Any]) -> Config:
        """Return the whole configuration of a partly given one: filled from ``defaults``.

        An override may also canonicalise, so that several points of a grid become one run. It must be
        idempotent: its result, given again, has the same key.
        """
        given = Config(config)
        if self.strict is None:
            check_names(given, self.defaults, type(self).__name__)
        source = str(self.default_config or "the defaults")
        return given.fill(self.defaults, strict=self.strict is True, source=source).allow(self.allowed_targets())

    def setup(self, config: Config) -> None:
        """Build what is trained (model, optimizer, data) for ``config``; called before the checkpoint is loaded."""
        self.config = config
        self.key = self.store.find(config) or self.key
        self.epoch = 0

    def init_ckpt(self) -> None:
        """Start a run that has no checkpoint."""
        self.epoch = 0
        self.ckpt = {"eval_records": {}}
        self.preview = {}

    def load_ckpt(self) -> None:
        """Load the newest checkpoint of the run into ``ckpt``, ``preview``, ``epoch`` and the ``state`` attributes.

        Raises ``NoRecord`` where there is none, and ``CheckpointError`` where it lacks a needed state. The
        random states are restored after this hook, whatever an override still draws.
        """
        commit, loaded, preview = self._newest_state()
        self._random = loaded.pop(_RANDOM, None)
        for name in self.state:
            if name not in loaded:
                raise CheckpointError(
                    f"the checkpoint of run {self.key} has no state {name!r}, so it cannot be resumed exactly; "
                    f"it has {sorted(map(str, loaded))}"
                )
            self._holder_of(name, "load_state_dict").load_state_dict(loaded.pop(name))
        self.ckpt = loaded
        self.preview = preview
        self.epoch = commit.epoch
        self.step = commit.step

    def save_ckpt(self) -> None:
        """Commit ``ckpt``, the ``state`` attributes, the random states and ``preview`` at this epoch."""
        if self._run is None:
            raise HookError("save_ckpt() was called outside of process(); a run is written by its owner alone")
        whole = dict(self.ckpt)
        for name in (*self.state, _RANDOM):
            if name in whole:
                raise CheckpointError(f"ckpt has the key {name!r}, which is taken by the state of that name; rename it")
        for name in self.state:
            whole[name] = self._holder_of(name, "state_dict").state_dict()
        whole[_RANDOM] = self._team.gathered(random_state.take())
        self._run.commit(whole, self.preview, self.epoch, self.step)

    def train(self) -> None:
        """Train for one epoch.

        A loop of one's own may end within its epoch once ``stop`` is set, by ``self.pause()``: then the ``state`` has
        to tell where in the epoch it stands, and the next call goes on from there.
        """
        raise HookError(f"{type(self).__name__} has no train(); write one that trains for one epoch")

    def eval(self) -> Mapping[str, Any] | None:
        """Evaluate; a returned dict goes into ``preview`` and ``ckpt['eval_records'][epoch]``."""
        raise HookError(f"{type(self).__name__} has no eval(); write one that evaluates and returns a dict")

    def pause(self) -> NoReturn:
        """Leave `train` in the middle of an epoch: the run is saved as it stands, and goes on with whoever takes it."""
        if not (self.is_training and self.stop):
            raise HookError("pause() was called where nothing is to stop; call it in train(), once self.stop is set")
        raise EpochPaused

    def end_run(self, is_done: bool) -> None:
        """Let go of what `setup` opened for this run, however it ended; nothing, here.

        ``is_done`` where it was trained to its last epoch.
        """

    # What a user calls

    def process(
        self, config: Mapping[str, Any], num_epochs: int | None = None, resume: bool = True, *, wait: bool = False,
        retries: int = 0, new_fields: str = "ask",
    ) -> str:
        """Train one configuration to ``num_epochs`` in all and return its key; a no-op where that is done.

        ``num_epochs=0`` is an evaluation-only run. ``resume=False`` starts a new generation from nothing.
        Raises ``RunBusy`` where another live worker holds the run (unless ``wait``), ``RunFailed`` where it
        is marked failed, ``Stopped`` after a stop signal or the time limit, and what a hook raised.
        Several ranks of one job make the call together, see ``ranks``.
        """

        def work() -> str:
            worker = Worker(self, self._total(num_epochs), retries=retries, resume=resume, postpones=False)
            batch = Batch(self, Admission(self, new_fields), worker)
            try:
                with self._at_work(resume):
                    return batch.one(config, wait=wait)
            except Stopped as stopped:
                self._hand_on(worker, self.stop.reason)
                if worker.is_hopeless:
                    raise Stopped(worker.shortage) from stopped
                raise

        return ranks.together(self, "process", work)

    def batch(
        self, configs: Iterable[Mapping[str, Any]], num_epochs: int | None = None, resume: bool = True, count: int = 0,
        patience: float | None = None, max_errors: float = 0, wait: bool = False, *, max_in_a_row: int | None = None,
        retries: int = 0, new_fields: str = "ask",
    ) -> BatchReport:
        """Train every configuration that no other worker has, in the given order; any iterable will do.

        ``count`` models at most (0: all). Runs held elsewhere are skipped, or waited for with ``wait``.
        With ``max_errors=0`` the first exception of a hook is raised; else the batch goes on until that many
        runs, or ``max_in_a_row`` one after the other, have failed. ``patience`` is deprecated.
        """
        if patience is not None:
            warnings.warn("patience is deprecated; use Manager(lease_s=...)", DeprecationWarning, stacklevel=2)

        def work() -> BatchReport:
            worker = Worker(self, self._total(num_epochs), retries=retries, resume=resume)
            batch = Batch(self, Admission(self, new_fields), worker)
            with self._at_work(resume):
                report = batch.all(configs, count=count, wait=wait, max_errors=max_errors, max_in_a_row=max_in_a_row)
            if report.postponed:
                report.stopped = report.stopped or TIME_LIMIT
            elif report.has_dealt_with(configs):  # its time was up with the last of them
                report.stopped = report.stopped if report.stopped != TIME_LIMIT else ""
                return report
            self._hand_on(worker, report.stopped)
            if worker.is_hopeless and not worker.saves:
                raise Stopped(worker.shortage)
            return report

        return ranks.together(self, "batch", work)

    def sweep(
        self, choices: Any = None, order: str = "random", fixed: Mapping[str, Any] | None = None, **batch: Any
    ) -> BatchReport:
        """``batch`` over the grid of ``choices`` (a mapping, a list of them or a YAML file) in ``order``.

        ``order`` is ``random`` (so that workers seldom meet) or ``given``. The fields ``fixed`` overrule the grid's.
        A Slurm job that is requeued keeps its random order, and so comes back to the run that it left.
        """
        chosen = choices if choices is not None else self._own_choices()
        points = Fixed(grid(chosen), fixed) if fixed else grid(chosen)
        if order not in ("random", "given"):
            raise ValueError(f"order is {order!r}, it must be 'random' or 'given'")
        return self.batch(points if order == "given" else Shuffled(points, job_time.random_order()), **batch)

    def fetch(self, key: str, device: str | None = None) -> Any:
        """The trained model of ``key`` in eval mode, or this Manager with the run loaded where it has no ``model``.

        Calls ``setup`` and ``load_ckpt``, with ``self.device`` set to ``device`` where that is given, and writes
        nothing. ``key`` may be any unique prefix. Warns with ``CodeChanged`` where the run recorded its sources and the
        job's are others now.
        """
        if self.is_training:
            raise HookError("fetch() was called in a hook and would replace the run in training; use a second Manager")
        key, usual = self.store.resolve(key), self._device
        warn_of_changes(self, key)  # first: a model that was changed may not load any more
        self._device = usual if device is None else str(device)
        try:
            self.key = key
            self.setup(self.store.config(key).allow(self.allowed_targets()))
            self.key = key
            self.load_ckpt()
        finally:
            self._device = usual
        model: Any = getattr(self, "model", self)
        if model is self or not hasattr(model, "eval"):
            return model
        return (model if device is None or not hasattr(model, "to") else model.to(device)).eval()

    def export_model(self, key: str, path: str | os.PathLike[str], device: str | None = None) -> Path:
        """Write the trained model of ``key`` into the new folder ``path``, for others; see ``model_export.export``."""
        from jimmy_manager.manager.model_export import export

        return export(self, key, path, device)

    @classmethod
    def main(cls, argv: list[str] | None = None) -> None:
        """The command line of a job file: ``python jobs/digits.py sweep ...`` is ``jimmy sweep jobs/digits.py ...``."""
        from jimmy_manager.cli.main import run_job

        run_job(cls, argv)

    @property
    def device(self) -> str:
        """Where to train, as torch names it: asked for, this worker's share, the first GPU, the CPU."""
        if self._device is None:
            self._device = shares.device(None)
        return self._device

    @device.setter
    def device(self, device: Any) -> None:
        self._device = str(device)

    def seed(self, config: Config) -> int:
        """The seed of Python's, numpy's and torch's generators, set before ``setup``: the field ``seed``, else 0.

        Runs that differ in another field start from the same numbers, in whatever order workers train them.
        """
        value = config.get("seed")
        if isinstance(value, float) and value.is_integer():  # 1.0 and 1 are one value, and have one key
            return int(value)
        if value is not None and type(value) is not int:
            raise ConfigError(f"seed is {value!r}, it must be an int; override Manager.seed for another rule")
        return value or 0

    @property
    def is_training(self) -> bool:
        """Whether a run is in training at this moment, so that this is called in a hook."""
        return self._run is not None

    def allowed_targets(self) -> tuple[str, ...]:
        """The prefixes under which a ``_target_`` may be found: ``targets``, the job's own module, and the defaults."""
        return (*self.targets, *job_module.names_of(type(self)), *DEFAULT_TARGETS)

    @property
    def _time(self) -> Deadline:
        """When this worker has to be gone, which is found out when somebody first wants to know it."""
        if self._deadline is None:
            self._deadline = Deadline(self.store.claims.clock.monotonic, job_time.left_s(self._limit_s))
        return self._deadline

    @contextmanager
    def _at_work(self, resume: bool) -> Iterator[None]:
        """Catch signals, mind the time, and tell of the progress."""
        if self.requeue and not resume:
            raise ConfigError("a job that is requeued would start from nothing each time; leave out requeue, or resume")
        job_time.check_requeue(self.requeue)
        self.progress = progress.choose(self)
        with self.stop.installed():
            try:
                self.stop.end_at(self._time.moment)
                yield
            finally:
                self.progress.close()

    def _hand_on(self, worker: Worker, reason: str) -> None:
        """Requeue the job where that is due; not one that only waited for others to end theirs."""
        if worker.has_begun or worker.shortage:
            job_time.hand_on(self.requeue, self.stop, reason, saves=worker.saves, shortage=worker.shortage)

    def _holder_of(self, name: str, method: str) -> Any:
        holder = getattr(self, name, None)
        if not hasattr(holder, method):
            raise HookError(
                f"state names {name!r}, but self.{name} is {type(holder).__name__} and has no {method}(); "
                "set it in setup(), or take it out of state"
            )
        return holder

    def _newest_state(self) -> tuple[Commit, dict[str, Any], dict[str, Any]]:
        """The newest commit with its checkpoint and its preview; one of which either is damaged is passed over."""
        def read(commit: Commit) -> tuple[Commit, dict[str, Any], dict[str, Any]]:
            return commit, self.store.ckpts.read(commit), self.store.previews.read(commit)

        if self._run is None:
            return self.store.history.newest(self.key, read)
        commit = self._run.newest
        if commit is None:
            self._absent = NoRecord(f"run {self.key} has no checkpoint yet")
            raise self._absent
        return read(commit)

    def _total(self, num_epochs: int | None) -> int:
        total = self.num_epochs if num_epochs is None else num_epochs
        if total is None:
            raise HookError(f"how long? give num_epochs, or set {type(self).__name__}.num_epochs")
        if total < 0:
            raise ValueError(f"num_epochs is {total}, it must be 0 or more")
        return total

    def _own_folder(self) -> Path:
        try:
            return Path(inspect.getfile(type(self))).resolve().parent
        except (TypeError, OSError):  # defined in a notebook or at a prompt
            return Path.cwd()

    def _own_defaults(self) -> Mapping[str, Any] | Path:
        return self._own_folder() / self.default_config if self.default_config else {}

    def _own_choices(self) -> Any:
        if self.choices is None:
            raise HookError(f"sweep over what? give choices, or set {type(self).__name__}.choices")
        return self._own_folder() / self.choices if isinstance(self.choices, (str, os.PathLike)) else self.choices


def _accept_old(arguments: Mapping[str, Any]) -> None:
    """Let jarvis's arguments for the paths and pauses of its archives pass; they mean nothing here."""
    for name in arguments:
        if name not in _OLD_ARGUMENTS:
            raise TypeError(f"Manager() got an unexpected argument {name!r}")
        warnings.warn(f"{name} means nothing any more; leave it out", DeprecationWarning, stacklevel=3)
