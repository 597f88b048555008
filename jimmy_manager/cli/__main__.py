"""``python -m jimmy_manager.cli`` is ``jimmy``."""

from jimmy_manager.cli.main import main

main(prog_name="jimmy")
