"""The code that goes along with runs that are handed over: each file once, however many of them name it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from jimmy_manager.archives import code, layout
from jimmy_manager.archives.files import Files
from jimmy_manager.errors import DamagedRecord, StoreTooNew

log = logging.getLogger(__name__)


class CarriedCode:
    """What of the code of a store has been handed over so far."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._taken: set[str] = set()

    def take(self, run: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
        """What stats may say as ``run`` where they go, and the files that this needs besides those taken before.

        Code that is damaged stays behind, with a warning, and then the stats name none: the results are whole.
        """
        if {code.tree_of(run), code.diff_of(run)} - {None} <= self._taken:
            return dict(run), {}
        try:
            whole = {digest: code.read(self._files, digest) for digest in code.needed(self._files, run)}
        except (DamagedRecord, StoreTooNew) as error:
            log.warning("the code of a run is left out: %s", error)
            return code.without_code(run), {}
        fresh = {layout.code(digest): data for digest, data in whole.items() if digest not in self._taken}
        self._taken |= whole.keys()
        return dict(run), fresh
