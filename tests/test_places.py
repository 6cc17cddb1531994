"""Workers with several trials at a time: what befalls one of them, and the worker.

Room: mtl/executors, mtl/worker, mtl/dispatch.
"""

import ast
import os
import signal
import socket
import threading
import time
from multiprocessing import Pipe

import pytest

from mtl.common import process
from mtl.dispatch.plan import plan_study
from mtl.executors.resources import Resources
from mtl.storage.home import Home
from mtl.study.load import load_study
from mtl.terminal.words import at_a_time
from mtl.worker import __main__ as worker
from mtl.worker.commands import Commands
from mtl.worker.messages import Cancel, Failed, Stopped, TrialJob
from support.commands import mtl_here
from support.invariants import broken, differences
from support.study_runs import Study, wait_until

TOGETHER = ("--jobs", "1", "--cohort", "3")


@pytest.fixture
def study(tmp_path, reference):
    study = reference.elsewhere(tmp_path / "home").furnished()
    yield study
    study.kill()


def _wait_for_all(study: Study, *texts: str) -> None:
    """Read what it prints until each of these has come, in whatever order."""
    left = set(texts)
    while left:
        line = study.process.stdout.readline()
        assert line, f"{left} never came"
        left = {text for text in left if text not in line}


def test_killed_with_three_trials_in_it_and_then_interrupted(study, reference):
    """All of them go on, twice, and end as each alone has ended."""
    study.start(*TOGETHER)
    _wait_for_all(study, "1 worker with 3 trials", *(f"trial {n} epoch 1:" for n in range(3)))
    _kill_worker(study)
    _wait_for_all(study, *(f"trial {n} resumed" for n in range(3)))
    _wait_for_all(study, *(f"trial {n} epoch 2:" for n in range(3)))
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130, out

    left = [number for number, state, _ in study.trials() if state == "RUNNING"]
    assert left
    for number in left:
        assert (study.home / f"checkpoints/tiny/{number}/last.safetensors").is_file()
        assert study.runs()[f"trial {number}"] == "KILLED"
    assert [study.attribute(number, "retries") for number in range(3)] == [1, 1, 1]

    code, out = study.run_here(*TOGETHER)
    assert code == 0, out
    assert broken(study, 3) == []
    assert differences(study, reference, within=1e-4) == []


def test_who_ends_workers_is_found_out_alone(study):
    """Where all of a worker's trials are lost twice at one place, none ends: each goes on by
    itself, and ends where it is lost there once more."""
    study.start(*TOGETHER, "--trials", "3")
    _wait_for_all(study, *(f"trial {n} epoch 1:" for n in range(3)))
    _kill_worker(study)
    _wait_for_all(study, *(f"trial {n} resumed" for n in range(3)))
    _kill_worker(study)
    for number in range(3):
        said = f"trial {number}: its worker was killed by SIGKILL; it goes on from its checkpoint"
        study.wait_for(f"{said}, in a worker for itself")
    _kill_worker(study)
    code, out = study.end()
    assert code == 1, out
    assert [state for _, state, _ in study.trials()] == ["FAIL", "COMPLETE", "COMPLETE"], out
    assert study.attribute(0, "reason").endswith("at the same place as before")
    assert study.doubles() == []


def _kill_worker(study: Study) -> None:
    wait_until(study.worker_pids)
    (pid,) = study.worker_pids()
    os.kill(pid, signal.SIGKILL)


def test_one_that_diverges_leaves_the_others_and_its_place(tmp_path, reference):
    """There are two more trials than places: they begin where others have ended."""
    more = '[[points]]\n"train.lr" = 1e30\n"lora.rank" = 1\n"lora.alpha" = 1.0\n'
    study = Study(tmp_path / "study", tmp_path / "home", trials=5, epochs=2, steps=4, more=more)
    alone = study.elsewhere(tmp_path / "alone")
    for home, options in ((study, TOGETHER), (alone, ("--jobs", "1"))):
        code, out = home.furnished().run_here(*options)
        assert code == 1, out
        assert "diverged" in home.attribute(0, "reason")
        assert [state for _, state, _ in home.trials()] == ["FAIL", *["COMPLETE"] * 4]
    assert differences(study, alone, within=1e-4) == []


# ---- without a training -------------------------------------------------------------------------


def _job(number: int) -> TrialJob:
    return TrialJob("s", number, {"backbone": "demo"}, "", "", "", "", "")


def _three_jobs(monkeypatch, train):
    """Return a dispatcher's and a worker's end of a pipe: three trials wait, to be run so."""
    monkeypatch.setattr(worker, "run_trial", train)
    ours, theirs = Pipe()
    for number in range(3):
        ours.send(_job(number))
    return ours, theirs


def test_one_that_lacks_memory_has_the_others_stop_and_the_process_end(monkeypatch):
    begun = [threading.Event() for _ in range(3)]

    def train(orders, send, cohort):
        assert cohort is not None
        number = orders.job.number
        begun[number].set()
        if number == 2:
            for event in begun:
                event.wait()
            return Failed(2, "out of memory", memory=True)
        if number == 1:
            assert orders.wait_for_answer() is None
        orders.stopping.wait()
        return orders.stopped()

    ours, theirs = _three_jobs(monkeypatch, train)
    commands = Commands(theirs)
    worker._Places(theirs, commands, 3).work()
    said = {event.number: event for event in (ours.recv() for _ in range(3))}
    assert said == {
        0: Stopped(0, crowded=True),
        1: Stopped(1, crowded=True),
        2: Failed(2, "out of memory", memory=True, beside=2),
    }
    commands.close()


def test_one_trial_is_stopped_without_the_others_and_all_when_the_dispatcher_is_gone(monkeypatch):
    def train(orders, send, cohort):
        orders.stopping.wait()
        return orders.stopped()

    ours, theirs = _three_jobs(monkeypatch, train)
    ours.send(Cancel(1))
    left = threading.Event()
    commands = Commands(theirs, left.set)
    places = threading.Thread(target=worker._Places(theirs, commands, 3).work)
    places.start()
    assert ours.recv() == Stopped(1)
    with socket.socket(fileno=os.dup(ours.fileno())) as half:
        half.shutdown(socket.SHUT_WR)  # nobody speaks any more; what it says is still heard
    said = [ours.recv(), ours.recv()]
    places.join()
    assert sorted(said, key=lambda event: event.number) == [
        Stopped(0, alone=True), Stopped(2, alone=True)
    ]  # fmt: skip
    commands.close()


def test_threads_parse_python_in_turn(monkeypatch):
    """Two at a time end in a SystemError of CPython's now and then: so a trial would."""
    parsing, most = [], []

    def parse(*args, **options):
        parsing.append(1)
        time.sleep(0.01)
        most.append(len(parsing))
        parsing.pop()
        return compile("1", "", "eval", ast.PyCF_ONLY_AST)

    monkeypatch.setattr(ast, "parse", parse)
    process.parse_in_turn()
    threads = [threading.Thread(target=ast.literal_eval, args=("1",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("jobs", "most", "cohort", "workers", "places", "width"),
    [(2, None, 3, 2, 3, 6), (2, 4, 3, 2, 2, 6), (1, 2, 8, 1, 2, 8), (4, 2, 3, 2, 1, 12)],
)
def test_places_are_no_more_than_trials(jobs, most, cohort, workers, places, width):
    given = Resources(jobs, most, cohort=cohort)
    assert (given.workers(1), given.places(1), given.width(1)) == (workers, places, width)


def test_how_many_at_a_time_is_said(tmp_path):
    assert at_a_time(2, 1) == "2 workers" and at_a_time(1, 3) == "1 worker with 3 trials"
    assert at_a_time(2, 3) == "2 workers with 3 trials each"
    for given, cohort in (("3", 3), ("auto", 1)):
        plan = ("study", "plan", "lora_sweep", "--jobs", "1", "--cohort", given, "--json")
        assert mtl_here(tmp_path, *plan).json["cohort"] == cohort
    spec = load_study("lora_sweep", trials=2)
    assert plan_study(spec, Home.resolve(), jobs=1, cohort=9, measure=False)["cohort"] == 2


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5", "257"])
def test_what_is_no_cohort_is_refused(tmp_path, given):
    done = mtl_here(tmp_path, "study", "run", "lora_sweep", "--cohort", given)
    done.refused("--cohort", given, "auto or a number from 1 to 256")


def test_tasks_of_ray_have_one_trial_each_as_yet(tmp_path, furnished):
    ray = ("study", "run", "lora_sweep", "--executor", "ray", "--cohort", "2")
    mtl_here(tmp_path, *ray).refused("--cohort 2", "leave --cohort out")
