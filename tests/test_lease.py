"""One dispatcher a study: taking, refusing, taking over, losing, whatever clocks say.

Room: mtl/storage, mtl/common.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from minbert import InputError
from mtl.common import birth, patience
from mtl.common.birth import lives, mark_of
from mtl.common.patience import Patience
from mtl.storage.home import Home
from mtl.storage.lease import Lease, LeaseLostError, dispatchers
from mtl.storage.lease_table import TABLE, read_row
from mtl.storage.optuna import open_engine, read_engine
from support.study_runs import wait_until

SHORT = 1.2  # a term, in seconds
ELSEWHERE = {"host": "elsewhere", "pid": 1, "process": "another-boot pid:[1] 17"}
OLD = ("study", "holder", "host", "pid", "born", "since", "renewed")


@pytest.fixture
def engine(storage):
    engine = open_engine(Home.resolve())
    yield engine
    engine.dispose()


def _change(engine, **values):
    with engine.begin() as connection:
        connection.execute(TABLE.update().values(**values))


def _refused(engine, study="s", **more) -> str:
    with pytest.raises(InputError) as refused, Lease(engine, study, **more):
        pass
    return str(refused.value)


def test_second_dispatcher_is_told_who_and_since_when(engine):
    with Lease(engine, "s"):
        message = _refused(engine)
    with engine.begin() as connection:
        assert connection.execute(TABLE.select()).first() is None
    assert f"process {os.getpid()} on" in message and "since 20" in message
    assert "\n" not in message


def test_other_studies_are_free(engine):
    with Lease(engine, "a"), Lease(engine, "b"):
        pass


def test_lease_is_given_back(engine):
    with Lease(engine, "s"):
        pass
    with Lease(engine, "s"):
        pass


def _once_alive() -> dict:
    """What a lease says of a process that is dead."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = mark_of(process.pid)
        process.kill()
    return {"pid": process.pid, "process": mark}


def test_lease_of_a_dead_process_is_taken_at_once(engine):
    told = []
    with Lease(engine, "s") as first:
        _change(engine, **_once_alive())
        with Lease(engine, "s", say=told.append), pytest.raises(LeaseLostError):
            first._renewed = []
            first.hold()
    assert told == []


def test_lease_of_a_recycled_process_number_is_taken(engine):
    with Lease(engine, "s"):
        _change(engine, process=f"{mark_of(os.getpid())}0")
        with Lease(engine, "s"):
            pass


# ---- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-30, 30])
def test_the_lease_of_a_living_process_is_its_own_whatever_the_clock_says(engine, hours):
    with Lease(engine, "s", term=SHORT) as lease:
        _change(engine, renewed=time.time() + 3600 * hours, born=1.0)
        assert list(dispatchers(engine)) == ["s"]
        assert "is being run by" in _refused(engine, term=SHORT)
        lease.hold()


def test_a_lease_that_is_renewed_is_not_taken_from_another_host(engine):
    """Its clock, or ours, is a day off; nothing is known of its process from here."""
    told = []
    with Lease(engine, "s", term=SHORT) as lease:
        _change(engine, **ELSEWHERE, renewed=1.0)
        assert "process 1 on elsewhere since" in _refused(engine, term=SHORT, say=told.append)
        lease.hold()
    assert len(told) == 1 and "process 1 on elsewhere" in told[0], told


@pytest.mark.parametrize("renewed", [1.0, 4e9])
def test_a_lease_that_is_not_renewed_while_one_looks_is_taken(engine, renewed):
    with Lease(engine, "s"):
        _change(engine, **ELSEWHERE)
        assert "process 1 on elsewhere since" in _refused(engine)
        _change(engine, renewed=renewed)
        began = time.monotonic()
        with Lease(engine, "s", term=SHORT):
            assert time.monotonic() - began >= SHORT


def test_expired_lease_that_nobody_took_is_kept(engine):
    with Lease(engine, "s") as lease:
        _change(engine, renewed=1.0)
        lease._renewed = []
        lease.hold()


def test_a_set_clock_has_the_lease_looked_at_before_the_next_write(engine, monkeypatch):
    with Lease(engine, "s") as lease:
        _change(engine, holder="another")
        lease.hold()  # it was renewed just now
        monkeypatch.setattr("mtl.storage.lease.time.time", lambda: 1e9)
        with pytest.raises(LeaseLostError):
            lease.hold()


def test_who_was_stopped_has_not_waited(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])
    waiting = Patience(3.0)
    clock[0] += 45.0  # stopped, and woken up
    assert not waiting.over
    clock[0] += 1.0
    assert not waiting.over and waiting.pause == 1.0
    clock[0] += 0.5
    assert not waiting.over and waiting.pause == 0.5
    clock[0] += 0.5
    assert waiting.over and waiting.pause == 0.0
    waiting.renew()
    assert not waiting.over


# ---- processes ----------------------------------------------------------------------------------


def test_a_process_is_known_by_what_no_clock_moves():
    mark = mark_of(os.getpid())
    assert mark is not None and lives(os.getpid(), mark) is True
    assert lives(os.getpid(), None) is None
    assert lives(os.getpid(), ELSEWHERE["process"]) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        born = mark_of(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert lives(process.pid, born) is False  # a zombie
    assert lives(process.pid, born) is False


def test_a_process_that_is_hidden_may_live(monkeypatch, tmp_path):
    """As other people's are where /proc is mounted with hidepid."""
    mark = mark_of(os.getpid())
    monkeypatch.setattr(birth, "_PROC", tmp_path)
    monkeypatch.setattr(birth, "_here", lambda: birth._Here(*mark.split(" ")[:2]))
    assert lives(os.getpid(), mark) is None
    assert lives(_once_alive()["pid"], mark) is False


def test_a_process_in_another_container_is_not_taken_for_one_here():
    program = "import os; from mtl.common.birth import mark_of; print(mark_of(os.getpid()))"
    isolated = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program]
    try:
        done = subprocess.run(isolated, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs unshare (Debian: util-linux)")
    if done.returncode:
        pytest.skip(f"namespaces are not permitted here: {done.stderr.strip()}")
    mark = done.stdout.strip()
    assert mark.split()[0] == mark_of(os.getpid()).split()[0]  # the same boot of one machine
    assert lives(1, mark) is None  # its number there, and there is a 1 here


# ---- tables of earlier versions -----------------------------------------------------------------


@pytest.fixture
def old(engine):
    """A table as version 0.1.0 made it; adds a lease to it."""
    columns = ", ".join(f"{name} {TABLE.c[name].type}" for name in OLD)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE mtl_leases ({columns}, PRIMARY KEY (study))"))

    def add(study: str, **values) -> None:
        now = time.time()
        row = {"study": study, "holder": "h", "born": 1.0, "since": now, "renewed": now} | values
        with engine.begin() as connection:
            connection.execute(TABLE.insert().values(**row))

    return add


def test_a_table_of_an_earlier_version_is_read_and_gone_on_with(engine, old):
    here = os.uname().nodename
    old("dead", host=here, pid=_once_alive()["pid"])
    old("alive", host=here, pid=os.getpid())
    old("elsewhere", host="elsewhere", pid=1)
    old("left", host="elsewhere", pid=1, renewed=1.0)
    reading = read_engine(Home.resolve())
    assert sorted(dispatchers(reading)) == ["alive", "elsewhere"]
    assert [c["name"] for c in sa.inspect(reading).get_columns("mtl_leases")] == list(OLD)
    reading.dispose()
    for study in ("alive", "elsewhere"):
        assert "is being run by" in _refused(engine, study)
    with Lease(engine, "dead"), Lease(engine, "left", term=SHORT):
        assert read_row(engine, "dead").lives is True
        assert sorted(dispatchers(engine)) == ["alive", "dead", "elsewhere", "left"]


def test_a_version_before_finds_its_rows_as_it_wrote_them(engine):
    """It may run beside: it knows a process by the clock, and writes no mark."""
    import psutil

    with Lease(engine, "s"):
        with engine.connect() as connection:
            row = connection.execute(sa.select(sa.text(", ".join(OLD))).select_from(TABLE)).one()
        assert abs(row.born - psutil.Process().create_time()) < 2
        assert abs(row.renewed - time.time()) < 60


def test_many_may_find_the_table_of_an_earlier_version_at_once(engine, old):
    old("left", host="elsewhere", pid=1)
    failed = []

    def take(study: str) -> None:
        try:
            with Lease(engine, study):
                pass
        except Exception as error:  # noqa: BLE001 (said by the test)
            failed.append(error)

    threads = [threading.Thread(target=take, args=(f"s{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_workers_hear_of_a_dispatcher_whose_database_hangs(engine, monkeypatch):
    heard = threading.Event()
    with ExitStack() as stack:
        lease = Lease(engine, "s", term=0.3)
        lease.also = heard.set
        renewing, let_go = threading.Event(), threading.Event()
        monkeypatch.setattr(lease, "_renew", lambda: (renewing.set(), let_go.wait(60)))
        stack.enter_context(lease)
        stack.callback(let_go.set)
        assert renewing.wait(60)
        heard.clear()
        wait_until(heard.is_set)
