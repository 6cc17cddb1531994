"""One dispatcher a study: taking, refusing, taking over, losing.

Room: mtl/storage.
"""

import subprocess
import sys

import pytest

from minbert import InputError
from mtl.storage.home import Home
from mtl.storage.lease import _TABLE, Lease, LeaseLostError
from mtl.storage.optuna import open_engine


@pytest.fixture
def engine(storage):
    engine = open_engine(Home.resolve())
    yield engine
    engine.dispose()


def _change(engine, **values):
    with engine.begin() as connection:
        connection.execute(_TABLE.update().values(**values))


def test_second_dispatcher_is_told_who_and_since_when(engine):
    with Lease(engine, "s"), pytest.raises(InputError) as refused, Lease(engine, "s"):
        pass
    message = str(refused.value)
    with engine.begin() as connection:
        assert connection.execute(_TABLE.select()).first() is None
    assert "process" in message and "since 20" in message and "\n" not in message


def test_other_studies_are_free(engine):
    with Lease(engine, "a"), Lease(engine, "b"):
        pass


def test_lease_is_given_back(engine):
    with Lease(engine, "s"):
        pass
    with Lease(engine, "s"):
        pass


def test_lease_of_a_dead_process_is_taken_at_once(engine):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with Lease(engine, "s") as first:
        _change(engine, pid=process.pid)
        with Lease(engine, "s"), pytest.raises(LeaseLostError):
            first._renewed = 0.0
            first.hold()


def test_lease_of_a_recycled_process_number_is_taken(engine):
    with Lease(engine, "s"):
        _change(engine, born=1.0)
        with Lease(engine, "s"):
            pass


def test_another_hosts_lease_is_respected_until_its_term(engine):
    with Lease(engine, "s"):
        _change(engine, host="elsewhere", pid=1)
        with pytest.raises(InputError, match="process 1 on elsewhere"), Lease(engine, "s"):
            pass
        _change(engine, renewed=1.0)
        with Lease(engine, "s"):
            pass


def test_expired_lease_that_nobody_took_is_kept(engine):
    with Lease(engine, "s") as lease:
        _change(engine, renewed=1.0)
        lease._renewed = 0.0
        lease.hold()
