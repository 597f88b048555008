"""The programs of this directory are executed by a test of their own; to be collected they would be imported."""

collect_ignore_glob = ["*.py"]
