"""Which configuration has which key. Records are written once and never changed or removed.

The key is the shortest prefix of the configuration's digest (8, 12, 16, ... digits) whose name is not taken
by another configuration. So the first of two that collide keeps the short key, and a look-up walks the same
names in the same order. An unreadable record is never skipped over: that would give one configuration two keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jimmy_manager import keys
from jimmy_manager.archives import layout
from jimmy_manager.archives.claims import Claims
from jimmy_manager.archives.files import unreadable
from jimmy_manager.archives.record import seal, unseal
from jimmy_manager.errors import AmbiguousKey, DamagedRecord, KeyNotFound, UnreadableRecord


class Registered(NamedTuple):
    """A configuration as its record holds it; ``stored`` is the form before the schema ledger's view."""

    key: str
    digest: str
    stored: dict[str, Any]

    def seal(self) -> bytes:
        """The bytes of the record; they depend on the configuration alone, so any worker may write them again."""
        return seal("config", {"digest": self.digest, "config": self.stored})


class Registry:
    """The configurations of one store."""

    def __init__(self, claims: Claims, key_len: int) -> None:
        self._claims = claims
        self._files = claims.files
        self.lengths = keys.lengths(key_len)
        # Records never change and are never removed, so what was seen once stays true.
        self._digests: dict[str, str] = {}
        self._shards: dict[str, set[str]] = {}

    def add(self, stored: dict[str, Any]) -> Registered:
        """Register ``stored`` (a ledger's key form) and return it with its key; a no-op where it has one."""
        digest = keys.digest(stored)
        for length in self.lengths:
            entry = Registered(digest[:length], digest, stored)
            deadline = self._claims.clock.monotonic() + 2 * self._claims.stale_s + 1.0
            while (holder := self._holder(entry)) is None:
                if self._create(entry):
                    return entry
                if self._claims.clock.monotonic() > deadline:
                    name = layout.config(entry.key)
                    raise UnreadableRecord(f"cannot read {name}: the name is taken, but its file is not visible here")
                self._claims.clock.sleep(0.01)
            if holder == digest:
                return entry
        raise AssertionError(f"two configurations share the whole digest {digest}")

    def find(self, stored: dict[str, Any], *, repair: bool = False) -> Registered | None:
        """``stored`` with its key, or None where it is not registered; ``repair`` writes a damaged record again."""
        digest = keys.digest(stored)
        for length in self.lengths:
            entry = Registered(digest[:length], digest, stored)
            is_old = entry.key[:2] in self._shards
            holder = self._holder(entry, repair=repair)
            if holder is None and is_old:  # another worker may have registered it since this shard was listed
                self._look(entry.key[:2])
                holder = self._holder(entry, repair=repair)
            if holder is None:
                return None
            if holder == digest:
                return entry
        return None

    def foresee(self, stored: dict[str, Any], taken: Mapping[str, str]) -> Registered:
        """``stored`` with the key that ``add`` would give it now, were the keys ``taken`` those of these digests."""
        digest = keys.digest(stored)
        entries = [Registered(digest[:length], digest, stored) for length in self.lengths]
        holders = (taken.get(entry.key) or self._holder(entry, repair=False) for entry in entries)
        return next(entry for entry, holder in zip(entries, holders, strict=False) if holder in (None, digest))

    def read(self, key: str) -> Registered:
        """The record of a whole key; ``KeyNotFound`` where there is none."""
        name = layout.config(key)
        try:
            raw = self._files.read(name)
        except FileNotFoundError:
            raise KeyNotFound(f"no run has the key {key!r}") from None
        except OSError as error:
            raise unreadable(name, error) from error
        data = unseal("config", raw, name)
        if not data["digest"].startswith(key):
            raise DamagedRecord(f"damaged record {name}: it was written as {data['digest'][: len(key)]}")
        self._digests[key] = data["digest"]
        return Registered(key, data["digest"], data["config"])

    def __iter__(self) -> Iterator[str]:
        """Every registered key, shard by shard, in order."""
        for shard in sorted(filter(layout.is_shard, self._files.names("configs"))):
            yield from sorted(self._list(shard))

    def resolve(self, prefix: str, is_shown: Callable[[str], bool] | None = None) -> str:
        """The one key that begins with ``prefix``; a whole key wins over longer ones that begin with it.

        Of several only those count for which ``is_shown``, where given, is true.
        """
        found = self._beginning_with(prefix) if re.fullmatch("[0-9a-f]{1,64}", prefix) else []
        if prefix in found:
            return prefix
        if len(found) > 1 and is_shown is not None:
            found = [key for key in found if is_shown(key)] or found
        if len(found) > 1:
            shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
            raise AmbiguousKey(f"{prefix!r} begins {len(found)} keys: {shown}; type more digits")
        if not found:
            raise KeyNotFound(f"no run has the key {prefix!r}")
        return found[0]

    def _beginning_with(self, prefix: str) -> list[str]:
        keys = self._list(prefix[:2]) if len(prefix) > 1 else self
        return sorted(key for key in keys if key.startswith(prefix))

    def is_registered(self, key: str) -> bool:
        """Whether a whole key has a record, readable or not."""
        return layout.is_key(key) and (key in self._digests or key in self._list(key[:2]))

    def _holder(self, entry: Registered, *, repair: bool = True) -> str | None:
        """The digest of the configuration that has this key, or None where the name is free."""
        if entry.key in self._digests:
            return self._digests[entry.key]
        shard = self._shards.get(entry.key[:2])
        if shard is None:
            shard = self._look(entry.key[:2])
        if f"{entry.key}.json" not in shard:
            return None
        try:
            return self.read(entry.key).digest
        except KeyNotFound:  # listed earlier, moved aside as damaged since
            shard.discard(f"{entry.key}.json")
            return None
        except DamagedRecord:
            return self._holder_of_damaged(entry, repair)

    def _holder_of_damaged(self, entry: Registered, repair: bool) -> str | None:
        """Decide by the claims whose key a damaged record was; they carry the digest of the configuration."""
        name = layout.config(entry.key)
        for generation in self._claims.look(entry.key).claims:
            try:
                is_ours = entry.digest.startswith(self._claims.read(entry.key, generation).digest)
            except DamagedRecord:
                continue
            if not is_ours:
                return "another configuration, as its claims say"
            if repair:
                self._files.replace(name, entry.seal())
                self._digests[entry.key] = entry.digest
            return entry.digest
        if self._claims.look(entry.key).top or not repair:
            return self.read(entry.key).digest
        # Left by a crash of a creation without links. Its creator, should it still live, reads its name back.
        self._claims.clock.sleep(2 * self._claims.stale_s + 0.05)
        try:
            return self.read(entry.key).digest
        except DamagedRecord:
            aside = layout.scratch(f"{layout.DAMAGED}/{entry.key}.json")
            self._files.move(name, aside)
            self._put_back_if_whole(aside, name)
            self._look(entry.key[:2])
            return None

    def _put_back_if_whole(self, aside: str, name: str) -> None:
        """Undo a move that hit what another worker had put in the place of the damaged record meanwhile."""
        try:
            raw = self._files.read(aside)
            unseal("config", raw, name)
        except (DamagedRecord, FileNotFoundError):
            return
        self._files.create(name, raw)

    def _create(self, entry: Registered) -> bool:
        won = self._files.create(layout.config(entry.key), entry.seal())
        if won:
            self._digests[entry.key] = entry.digest
        self._shards.setdefault(entry.key[:2], set()).add(f"{entry.key}.json")
        return won

    def _list(self, shard: str) -> set[str]:
        """The keys of a shard."""
        return {found.key for name in self._look(shard) if (found := layout.parse("configs", name))}

    def _look(self, shard: str) -> set[str]:
        """The file names of a shard, not parsed: a sweep asks for few of them."""
        self._shards[shard] = set(self._files.names(f"configs/{shard}"))
        return self._shards[shard]
