"""The schema ledger: fields that configurations have gained, renamed and lost, and why old keys stay valid."""

from jimmy_manager.schema.ledger import Entry, Ledger

__all__ = ["Entry", "Ledger"]
