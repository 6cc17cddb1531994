"""Signals while something is recorded: they raise nothing, and nobody who is stuck stays."""

import signal
import subprocess
import sys

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _start(body: str) -> subprocess.Popen:
    head = "import os, signal, time\nfrom mtl.interrupts import Interrupts\n"
    process = subprocess.Popen(
        [sys.executable, "-c", head + body], text=True, stdout=-1, stderr=-1, encoding="utf-8"
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_signals_end_a_process_whose_main_thread_hears_nothing():
    stuck = """
with Interrupts("the last words"):
    print("ready", flush=True)
    time.sleep(120)
"""
    process = _start(stuck)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "mtl: the last words")


def test_flags_are_set_and_what_was_before_comes_back():
    polite = f"""
before = [signal.getsignal(n) for n in {tuple(map(int, SIGNALS))}]
with Interrupts("the last words") as interrupts:
    print("ready", flush=True)
    while not interrupts.asked:
        time.sleep(0.01)
    print("asked", interrupts.hurried, flush=True)
    while not interrupts.hurried:
        time.sleep(0.01)
assert before == [signal.getsignal(n) for n in {tuple(map(int, SIGNALS))}]
assert signal.set_wakeup_fd(-1) == -1
time.sleep(2.5)  # who has left is not ended
print("left")
"""
    processes = {number: _start(polite) for number in SIGNALS}
    for number, process in processes.items():
        process.send_signal(number)
        assert process.stdout.readline() == "asked False\n", number
        process.send_signal(number)
    for number, process in processes.items():
        assert process.communicate(timeout=30) == ("left\n", ""), number
        assert process.returncode == 0, number


def test_an_ignored_signal_stays_ignored():
    ignoring = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Interrupts("the last words") as interrupts:
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.5)
    print(interrupts.asked)
"""
    assert _start(ignoring).communicate(timeout=30) == ("False\n", "")


def test_one_signal_ends_what_only_prepares():
    preparing = """
with Interrupts("the last words") as interrupts:
    interrupts.preparing = True
    print("ready", flush=True)
    time.sleep(120)
"""
    process = _start(preparing)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "\nmtl: the last words\n")
    assert process.returncode == 130
