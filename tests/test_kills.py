"""kill -9 of a worker, of the dispatcher and of both, at random moments of a study: the same
command again, until it ends, and the study is the one that nobody disturbed.

Room: mtl/dispatch, mtl/worker.
"""

import os
import random

import pytest

from support.chaos import Killer, draw_kills
from support.invariants import broken, differences

# Each costs a start of the study, which takes seconds. The soak has no end of them.
KILLS = int(os.environ.get("MTL_KILLS", "3"))
SEED = int(os.environ.get("MTL_KILLS_SEED", "0"))


def _options(trials: int) -> tuple[str, ...]:
    return ("--jobs", "1", "--trials", str(trials))


# A start takes a busy machine half a minute; the run of 30 kills has as many of them.
@pytest.mark.timeout(300 + 60 * KILLS)
def test_killed_anywhere_a_study_ends_as_if_nobody_had(tmp_path, reference):
    study = reference.elsewhere(tmp_path / "home")
    log, trials = tmp_path / "study.log", 3
    generator = random.Random(SEED)
    killer = Killer(study, generator, log)

    for kill in draw_kills(generator, KILLS):
        while study.process is None or study.process.poll() is not None:
            killer.start(*_options(trials))
        while killer.strike(kill) is None:  # it ended first: it shall have more to do
            assert study.process.wait() == 0, log.read_text()
            trials += 2
            killer.start(*_options(trials))

    while study.process.wait() != 0:
        assert study.process.returncode == -9, log.read_text()
        killer.start(*_options(trials))
    assert killer.killed.total() == KILLS
    assert broken(study, trials) == [], log.read_text()
    undisturbed = reference
    if len(reference.trials()) < trials:
        undisturbed = study.elsewhere(tmp_path / "undisturbed")
        code, out = undisturbed.run_here(*_options(trials))
        assert code == 0 and broken(undisturbed, trials) == [], out
    assert differences(study, undisturbed) == [], log.read_text()
