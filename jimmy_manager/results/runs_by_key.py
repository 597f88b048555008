"""All runs of a store as one mapping from key to what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from jimmy_manager.errors import AmbiguousKey, KeyNotFound

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Looking
    from jimmy_manager.results.run_results import RunResults


class RunsByKey(Mapping[str, "RunResults"]):
    """``manager.runs``: any unique prefix of a key finds its run; nothing is read before that."""

    def __init__(self, looking: Looking) -> None:
        self._looking = looking
        self._store = looking._looked_at()

    def __getitem__(self, key: str) -> RunResults:
        return self._looking.run(key)

    def __iter__(self) -> Iterator[str]:
        return self._store.keys()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            return not self._store.is_popped(self._store.resolve(key))
        except (KeyNotFound, AmbiguousKey):
            return False

    def _ipython_key_completions_(self) -> list[str]:
        return self._store.configs._ipython_key_completions_()

    def __repr__(self) -> str:
        return f"<{len(self)} runs in {self._store}>"

    def _repr_html_(self) -> str:
        return self._looking._repr_html_()
