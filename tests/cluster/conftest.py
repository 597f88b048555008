"""A cluster for each test that asks for one: what befalls its nodes stays its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import slurm
from tests.lab import lab


@pytest.fixture
def cluster() -> Iterator[slurm.Cluster]:
    with slurm.running(lab("slurm.sh")) as cluster:
        yield cluster
