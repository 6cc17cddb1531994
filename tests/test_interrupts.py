"""Signals while something is recorded: they raise nothing, and nobody who is stuck stays.

Room: mtl/common.
"""

import signal
import subprocess
import sys
import tomllib

import pytest

from support.commands import Outcome
from support.paths import REPOSITORY

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _start(body: str) -> subprocess.Popen:
    head = "import os, signal, time\nfrom mtl.common.signals import Interrupts\n"
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


_AT_AN_IMPORT = """
import os, signal, sys
module = sys.argv.pop(1)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from mtl.__main__ import main
main()
"""


def _interrupted_at(module: str, *args: str) -> Outcome:
    """Run the command as its console script does, with a Ctrl-C when it imports a module."""
    command = [sys.executable, "-c", _AT_AN_IMPORT, module, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("module", ["mtl.cli", "click", "mtl.cli.ui", "mtl.common.masking"])
def test_an_interrupt_while_the_command_line_is_imported_is_one_line(module):
    line = "mtl: interrupted before anything began; the same command begins it\n"
    assert _interrupted_at(module, "study", "list") == Outcome(130, "", line)


LATER = ["mtl.storage.lease", "mtl.study.load", "pydantic", "mtl.dispatch.run"]


@pytest.mark.parametrize("module", LATER)
def test_an_interrupt_before_a_study_begins_says_what_resumes_it(module):
    line = "Interrupted. To go on where it stopped: mtl study run lora_sweep --trials 3\n"
    outcome = _interrupted_at(module, "study", "run", "lora_sweep", "--trials", "3")
    assert outcome == Outcome(130, "", line)


def test_the_console_script_is_what_hears_interrupts_first():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"mtl": "mtl.__main__:main"}
