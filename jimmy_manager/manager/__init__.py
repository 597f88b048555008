"""The butler: hooks, process, batch and sweep over a store."""
