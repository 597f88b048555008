"""The older place of ``jimmy_manager.plain_text``."""

from __future__ import annotations

from jimmy_manager.plain_text import plain, plain_lines

__all__ = ["plain", "plain_lines"]
