"""``python -m jimmy_manager.cli`` is ``jimmy``, also in what a run's record says of its command."""

import sys

from jimmy_manager.cli.main import main

sys.argv[0] = "jimmy"
main()
