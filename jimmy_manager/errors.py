"""The exception tree: everything that this package raises on purpose.

::

    JimmyError
    ├── ConfigError          (ValueError)        a configuration, a choice or a YAML file is wrong
    │   ├── UnknownField     (KeyError)          a field that the defaults do not have
    │   ├── TargetRefused                        a ``_target_`` outside the allow-list
    │   └── WhereError                           a filter expression that does not parse
    ├── SchemaError          (ValueError)        an edit of the schema ledger that makes no sense
    ├── SchemaChanged                            the defaults gained fields: training would orphan old results
    ├── StoreError           (OSError)           the store cannot be opened or written
    │   ├── StoreTooNew                          written by a newer version of this package
    │   ├── UnsafeStore                          the doctor found a file system on which claims cannot be safe
    │   ├── WrongManager                         the store belongs to a Manager of another name
    │   └── ReadOnlyStore    (PermissionError)   a write through a read-only Manager or Store
    ├── RecordError                              one record of a run cannot be used
    │   ├── NoRecord         (KeyError)          absent: nothing of this name was committed
    │   ├── UnreadableRecord (OSError)           present, but the file system refuses to hand it over
    │   └── DamagedRecord    (ValueError)        present and readable, but not what was written
    ├── KeyNotFound          (KeyError)          no run has this key
    ├── AmbiguousKey         (KeyError)          several runs share this prefix
    ├── ClaimLost                                another worker holds a higher generation: stop writing
    ├── Stopped                                  a signal asked the worker to stop; the run was saved and is free
    ├── RunBusy                                  another live worker holds this run
    ├── RunFailed                                the run is marked failed and nobody asked for a retry
    ├── RankFailed                               another rank of the same job raised; the message names it
    ├── CheckpointError      (ValueError)        a checkpoint holds what cannot be stored, or lacks what is needed
    ├── HookError            (TypeError)         a hook is missing or breaks its contract
    ├── DatasetError         (ValueError)        a dataset lacks what training needs, or its files are broken
    ├── NonFiniteLoss        (ArithmeticError)   a loss became NaN or infinite; the message names epoch, step and batch
    ├── SlurmError           (RuntimeError)      a command of Slurm failed, is absent or did not answer
    └── MissingExtra         (ImportError)       an optional dependency is not installed

Of warnings there is one, ``CodeChanged`` (UserWarning): a model was fetched whose code is another one now.
"""

from __future__ import annotations


class JimmyError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would put every message in quotes.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigError(JimmyError, ValueError):
    """A configuration, a choice or a YAML file is wrong; the message names the place."""


class UnknownField(ConfigError, KeyError):
    """A field that the defaults do not have; the message suggests the nearest one."""


class TargetRefused(ConfigError):
    """A ``_target_`` outside the allow-list; the message names the line that would allow it."""


class WhereError(ConfigError):
    """A filter expression that does not parse; the message points at the character."""


class SchemaError(JimmyError, ValueError):
    """An edit of the schema ledger that makes no sense."""


class SchemaChanged(JimmyError):
    """The defaults gained fields, so training now would orphan results that exist."""


class StoreError(JimmyError, OSError):
    """The store cannot be opened or written; the message names path and cause."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of this package."""


class UnsafeStore(StoreError):
    """The doctor found that claims cannot be safe on the file system of this store, so nobody may write there."""


class WrongManager(StoreError):
    """The store belongs to a Manager of another name."""


class ReadOnlyStore(StoreError, PermissionError):
    """A write was asked of a Manager or Store that was opened read-only."""


class RecordError(JimmyError):
    """One record of a run cannot be used."""


class NoRecord(RecordError, KeyError):
    """Nothing of this name was committed."""


class UnreadableRecord(RecordError, OSError):
    """The record is there, but the file system refuses to hand it over."""


class DamagedRecord(RecordError, ValueError):
    """The record is there, but it is not what was written."""


class KeyNotFound(JimmyError, KeyError):
    """No run in the store has this key."""


class AmbiguousKey(JimmyError, KeyError):
    """Several runs share this prefix; the message lists them."""


class ClaimLost(JimmyError):
    """Another worker holds a higher generation of this run; nothing more may be written for it."""


class Stopped(JimmyError):
    """A signal, the time limit or a request asked the worker to stop; the run is released, and goes on with others."""


class RunBusy(JimmyError):
    """Another live worker holds this run."""


class RunFailed(JimmyError):
    """The run is marked failed, and nobody asked for it to be tried again."""


class RankFailed(JimmyError):
    """Another rank of the same job raised; the message names it, and the cause has its traceback."""


class CheckpointError(JimmyError, ValueError):
    """A checkpoint holds a value that cannot be stored, or lacks one that is needed."""


class HookError(JimmyError, TypeError):
    """A hook is missing or breaks its contract."""


class DatasetError(JimmyError, ValueError):
    """A dataset lacks what training needs, or its files are not what they claim to be."""


class NonFiniteLoss(JimmyError, ArithmeticError):
    """A loss became NaN or infinite; the message names epoch, step and batch."""


class SlurmError(JimmyError, RuntimeError):
    """A command of Slurm failed, is absent or did not answer in time; the message quotes what it said."""


class MissingExtra(JimmyError, ImportError):
    """An optional dependency is not installed; the message ends in the install line."""


class CodeChanged(UserWarning):
    """The job's code is not that which a fetched run was trained from; the message says which files differ."""
