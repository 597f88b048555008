"""Configurations: a dict with dotted access, defaults, command-line overrides, and objects built from ``_target_``.

A ``Config`` holds only what can name a run (see ``values``): all that is put in is normalised and copied, so that two
configurations never share a container. A dot in a name always means nesting: ``{'optim.lr': 1}`` is
``{'optim': {'lr': 1}}``, and a field given in both ways at once is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from jimmy_manager.errors import ConfigError, UnknownField
from jimmy_manager.nesting import cleaned, flattened, split_path
from jimmy_manager.targets import DEFAULT_TARGETS, find_target
from jimmy_manager.values import normalize_text

Source: TypeAlias = "Mapping[str, Any] | str | os.PathLike[str] | None"

_MISSING: Any = object()


class Config(dict[str, Any]):
    """A dict whose fields are also reached by dotted path and, where no dict method has the name, as attributes.

    ``config['optim.lr']``, ``config['optim']['lr']`` and ``config.optim.lr`` are one field. Nested mappings are
    Configs, also in lists. Values are normalised copies: changing a mapping or list after putting it in changes nothing
    here. Equality is that of dicts (``True == 1``); whether two configurations are one run is decided by ``keys``.
    Raises ConfigError for a value that a configuration cannot hold, UnknownField (a KeyError) for a missing field.

    >>> config = Config({'arch': 'cnn', 'optim.lr': 0.1})
    >>> config.optim.momentum = 0.9
    >>> config
    Config({'arch': 'cnn', 'optim': {'lr': 0.1, 'momentum': 0.9}})
    >>> 'optim.lr' in config, config.get('optim.beta', 0.5), config.pop('optim.lr')
    (True, 0.5, 0.1)
    """

    __slots__ = ("_targets",)
    _targets: tuple[str, ...]

    def __init__(self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:
        object.__setattr__(self, "_targets", DEFAULT_TARGETS)
        if more:
            fields = {**dict(fields), **more}
        if fields:
            _put_all(self, _mapping(fields))

    def __missing__(self, path: str) -> Any:
        found = _find(self, path)
        if found is _MISSING:
            raise UnknownField(f"no field {path!r}" + _suggest(path, self))
        return found

    def __contains__(self, path: object) -> bool:
        return dict.__contains__(self, path) or _find(self, path) is not _MISSING

    def get(self, path: str, default: Any = None) -> Any:
        """Return the field at ``path``, or ``default`` where there is none."""
        found = dict.get(self, path, _MISSING)
        if found is _MISSING:
            found = _find(self, path)
        return default if found is _MISSING else found

    def __getattr__(self, name: str) -> Any:
        found = dict.get(self, name, _MISSING)
        if found is _MISSING and not name.isascii():
            found = _find(self, name)
        if found is _MISSING:
            # Probes of libraries (`__array__`, `_repr_html_`) must not pay for a suggestion.
            raise AttributeError(f"no field {name!r}" + ("" if name.startswith("_") else _suggest(name, self)))
        return found

    def flatten(self) -> dict[str, Any]:
        """Return the leaves by dotted path; lists and empty mappings are leaves. ``Config(c.flatten()) == c``.

        >>> Config({'optim': {'lr': 0.1, 'betas': [0.9, 0.99]}, 'extra': {}}).flatten()
        {'optim.lr': 0.1, 'optim.betas': [0.9, 0.99], 'extra': {}}
        """
        return {path: _plain(value) for path, value in flattened(self)}

    def asdict(self) -> dict[str, Any]:
        """Return a deep copy made of plain dicts and lists."""
        return {key: _plain(value) for key, value in self.items()}

    def clone(self) -> Config:
        """Return a copy that shares no container with this configuration."""
        return adopt_mapping(self, self._targets)

    def copy(self) -> Config:
        """The same as ``clone``: a shallow copy would let two configurations share their nested fields."""
        return self.clone()

    __copy__ = clone

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return self.clone()

    def __reduce__(self) -> tuple[Any, ...]:
        return adopt_mapping, (self.asdict(), self._targets)

    def __repr__(self) -> str:
        return f"Config({self.asdict()!r})"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in self if name.isidentifier())})

    def _ipython_key_completions_(self) -> list[str]:
        return list(_paths(self, ""))

    def _repr_html_(self) -> str:
        from jimmy_manager import html

        return html.page(html.fields(self.asdict()) if self else "Config({})")

    def __setitem__(self, path: str, value: Any) -> None:
        parent, name = _parent(self, path)
        dict.__setitem__(parent, name, _adopt(cleaned(value, path), self._targets))

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(type(self), name):
            raise AttributeError(f"{name!r} is a method of Config; write config[{name!r}] = ... for the field")
        self[name] = value

    def __delitem__(self, path: str) -> None:
        self.pop(path)

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"no field {name!r}" + _suggest(name, self))
        del self[name]

    def pop(self, path: str, default: Any = _MISSING) -> Any:
        """Take the field at ``path`` out and return it; mappings on the way that become empty go as well."""
        if path not in self:
            if default is _MISSING:
                raise UnknownField(f"no field {path!r}" + _suggest(path, self))
            return default
        path = normalize_text(path)
        head, _, rest = path.partition(".")
        if not rest:
            return dict.pop(self, path)
        value = self[head].pop(rest)
        if not self[head]:
            dict.pop(self, head)
        return value

    def setdefault(self, path: str, default: Any = None) -> Any:
        """Return the field at ``path``, after setting it to ``default`` where it is missing."""
        if path not in self:
            self[path] = default
        return self[path]

    def update(self, fields: Any = None, /, **more: Any) -> None:
        """Overwrite fields from a mapping or a YAML file; nested mappings are merged, anything else is replaced.

        A mapping with another ``_target_`` replaces the old one whole: the arguments of one class mean nothing to
        another.

        >>> config = Config({'optim': {'lr': 0.1, 'momentum': 0.9}})
        >>> config.update({'optim.lr': 0.2})
        >>> config
        Config({'optim': {'lr': 0.2, 'momentum': 0.9}})
        """
        for part in (_read(fields), more):
            if part:
                _put_all(self, _mapping(part))

    def __ior__(self, other: Any) -> Config:  # type: ignore[override]  # merges like ``update``, unlike dict
        self.update(other)
        return self

    def __or__(self, other: Any) -> Config:  # type: ignore[override]  # the same
        merged = self.clone()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> Config:  # type: ignore[override]  # the same
        return Config(other) | self

    def fill(self, defaults: Source, strict: bool = False, source: str | None = None) -> Config:
        """Put in copies of those ``defaults`` (a mapping or a YAML file) that are missing here, and return self.

        Nested mappings are filled field by field, but not across two different ``_target_``s. With ``strict``, a field
        that the defaults do not have raises UnknownField before anything is changed; ``source`` names its origin in the
        message. A default that is None or an empty mapping leaves open which fields may stand below it.

        >>> Config({'optim': {'lr': 0.1}}).fill({'optim': {'lr': 1, 'momentum': 0.9}, 'seed': 0})
        Config({'optim': {'lr': 0.1, 'momentum': 0.9}, 'seed': 0})
        >>> Config({'layer': 1}).fill({'layers': 2}, strict=True, source='jobs/digits.yaml')
        Traceback (most recent call last):
            ...
        jimmy_manager.errors.UnknownField: unknown field 'layer' in jobs/digits.yaml; did you mean 'layers'?
        """
        given = defaults if isinstance(defaults, Config) else load_config(defaults)
        if strict:
            _check_known(self, given, given, "", f" in {source}" if source else "")
        _fill(self, given)
        return self

    def allow(self, targets: Iterable[str]) -> Config:
        """Let ``instantiate`` use these modules, packages, classes or functions and nothing else, here and below."""
        allowed = (targets,) if isinstance(targets, str) else tuple(targets)
        _allow(self, allowed)
        return self

    def instantiate(self, /, *args: Any, targets: Iterable[str] | None = None, **more: Any) -> Any:
        """Call what ``_target_`` names with the other fields as keyword arguments; ``more`` overrides them.

        Nested mappings are handed over as Configs, not instantiated: the class that gets one decides when and with
        what. ``targets`` replaces the allow-list set by ``allow`` for this call. Raises TargetRefused for what is
        outside it.

        >>> Config(_target_='jimmy_manager.config.Config', width=3).instantiate(depth=2)
        Config({'width': 3, 'depth': 2})
        """
        fields = self.clone()
        if targets is not None:
            fields.allow(targets)
        if "_target_" not in fields:
            raise ConfigError(f"nothing to instantiate: no field '_target_' among {_listing(self)}")
        target = dict.pop(fields, "_target_")
        build = find_target(target, fields._targets)
        try:
            return build(*args, **{**fields, **more})
        except Exception as error:
            error.add_note(f"while instantiating {target!r}")
            raise


def load_config(source: Source) -> Config:
    """Return a new Config from a mapping, a YAML file (a path or a file name), or None (an empty one).

    Raises ConfigError where the file's top level is not a mapping; an empty file is an empty configuration.
    """
    fields = _read(source)
    try:
        return Config(fields or {})
    except ConfigError as error:
        if not isinstance(source, str | os.PathLike):
            raise
        raise ConfigError(f"{error} in {os.fspath(source)}") from error


def from_cli(argv: Sequence[str] | None = None) -> Config:
    """Read ``NAME=VALUE`` arguments, by default those of the process: dotted names, YAML values, later ones win.

    >>> from_cli(['optim.lr=1e-3', 'arch=cnn', 'tags=[a,b]', 'x='])
    Config({'optim': {'lr': 0.001}, 'arch': 'cnn', 'tags': ['a', 'b'], 'x': None})
    >>> from_cli(['--lr', '0.1'])
    Traceback (most recent call last):
        ...
    jimmy_manager.errors.ConfigError: argument '--lr' is not of the form NAME=VALUE, such as optim.lr=1e-3
    """
    from jimmy_manager import yaml12

    config = Config()
    for argument in sys.argv[1:] if argv is None else argv:
        name, equals, text = argument.partition("=")
        if not equals or not name or name.startswith("-"):
            raise ConfigError(f"argument {argument!r} is not of the form NAME=VALUE, such as optim.lr=1e-3")
        try:
            config[name] = yaml12.loads(text, "VALUE")
        except ConfigError as error:
            raise ConfigError(f"argument {argument!r}: {error}") from error
    return config


def _adopt(value: Any, targets: tuple[str, ...]) -> Any:
    """Copy a normalised value, every mapping in it a Config."""
    if isinstance(value, dict):
        return adopt_mapping(value, targets)
    if isinstance(value, list):
        return [_adopt(item, targets) for item in value]
    return value


def adopt_mapping(mapping: dict[str, Any], targets: tuple[str, ...]) -> Config:
    """Return a Config with copies of fields that are known to be normalised and nested already."""
    config = Config.__new__(Config)
    object.__setattr__(config, "_targets", targets)
    _put_all(config, mapping)
    return config


def _put_all(config: Config, fields: dict[str, Any]) -> None:
    """Put copies of cleaned ``fields`` into ``config``, merging nested mappings."""
    put, targets = dict.__setitem__, config._targets
    for name, value in fields.items():
        if isinstance(value, dict):
            old = dict.get(config, name)
            if isinstance(old, Config) and not _differ_in_target(old, value):
                _put_all(old, value)
            else:
                put(config, name, adopt_mapping(value, targets))
        else:
            put(config, name, _adopt(value, targets) if isinstance(value, list) else value)


def _parent(config: Config, path: str) -> tuple[Config, str]:
    """Return the mapping that holds the field at ``path``, made where it is missing, and the field's own name."""
    *containers, name = split_path(path)
    for container in containers:
        inner = dict.get(config, container, _MISSING)
        if inner is _MISSING:
            inner = adopt_mapping({}, config._targets)
            dict.__setitem__(config, container, inner)
        elif not isinstance(inner, Config):
            raise ConfigError(f"cannot set field {path!r}: {container!r} is {inner!r}, not a mapping")
        config = inner
    return config, name


def _find(config: Config, path: object) -> Any:
    """Return what stands at a dotted path, or ``_MISSING``."""
    if not isinstance(path, str):
        return _MISSING
    found: Any = config
    for name in (path if path.isascii() else normalize_text(path)).split("."):
        if not isinstance(found, Config):
            return _MISSING
        found = dict.get(found, name, _MISSING)
    return found


def _fill(config: Config, defaults: Config) -> None:
    if _differ_in_target(config, defaults):
        return
    for name, default in defaults.items():
        own = dict.get(config, name, _MISSING)
        if own is _MISSING:
            dict.__setitem__(config, name, _adopt(default, config._targets))
        elif isinstance(own, Config) and isinstance(default, Config):
            _fill(own, default)


def _check_known(config: Config, defaults: Config, top: Config, above: str, where: str) -> None:
    if _differ_in_target(config, defaults):
        return
    for name, own in config.items():
        path = f"{above}.{name}" if above else name
        default = dict.get(defaults, name, _MISSING)
        if default is _MISSING:
            raise UnknownField(f"unknown field {path!r}{where}" + _suggest(path, top))
        if isinstance(own, Config) and default is not None and default != {}:
            if not isinstance(default, Config):
                raise ConfigError(f"field {path!r}{where} is a mapping; the default is the single value {default!r}")
            _check_known(own, default, top, path, where)


def _differ_in_target(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if "_target_" not in one.keys() or "_target_" not in other.keys():  # noqa: SIM118  # `in` on a Config parses paths
        return False
    return bool(one["_target_"] != other["_target_"])


def _allow(value: Any, targets: tuple[str, ...]) -> None:
    if isinstance(value, Config):
        object.__setattr__(value, "_targets", targets)
    for item in value.values() if isinstance(value, Config) else value:
        if isinstance(item, Config | list):
            _allow(item, targets)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _mapping(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        if not isinstance(fields, Iterable) or isinstance(fields, str | bytes):
            raise ConfigError(f"a configuration is a mapping of fields, not {fields!r} of type {type(fields).__name__}")
        fields = dict(fields)
    return cleaned(fields)  # type: ignore[no-any-return]  # a dict, because it was one


def _read(source: Any) -> Any:
    """Return the mapping that ``source`` is or, if it names a YAML file, holds."""
    if not isinstance(source, str | os.PathLike):
        return source
    from jimmy_manager import yaml12

    fields = yaml12.load(source)
    if fields is not None and not isinstance(fields, dict):
        raise ConfigError(f"{os.fspath(source)}: the top level is a {type(fields).__name__}, not a mapping of fields")
    return fields


def _suggest(path: str, config: Config) -> str:
    """Return the end of a message about a missing field: the nearest one there is, else a list."""
    import difflib

    known = list(_paths(config, ""))
    last = str(path).rpartition(".")[2]
    near = [name for name in known if name.rpartition(".")[2] == last] or difflib.get_close_matches(str(path), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {_listing(config)}"


def _paths(config: Config, above: str) -> Iterator[str]:
    for name, value in config.items():
        path = f"{above}.{name}" if above else name
        yield path
        if isinstance(value, Config):
            yield from _paths(value, path)


def _listing(config: Config) -> str:
    names = [repr(name) for name in config]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "no field at all"
