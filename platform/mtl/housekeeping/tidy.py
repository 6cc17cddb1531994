"""Tidying a home: what nobody needs any more is listed, and removed if that is asked for.

What is not known to be a leftover stays. Nothing of a study that a dispatcher works on is touched,
nothing that a training can go on from, nothing outside of the home, and never the spool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .removal import Removal

if TYPE_CHECKING:
    from ..storage.home import Home


def tidy(home: Home, remove: bool) -> Removal:
    """Look through a home for what nobody needs any more.

    Args:
        remove: remove it; without, nothing in the home changes.

    Raises:
        InputError: a database cannot be opened: without it nothing is known to be unneeded.
    """
    from ..tracking.store import settle_home
    from .artifacts import tidy_pictures, tidy_runs
    from .caches import tidy_caches, tidy_drafts, tidy_logs
    from .checkpoints import tidy_checkpoints
    from .runs import read_runs
    from .studies import open_studies

    removal = Removal(home.path, remove)
    if not home.path.is_dir():
        return removal
    if remove:
        settle_home(home)  # `mlflow gc` follows what the store says
    with open_studies(home, hold=remove) as studies:
        runs = read_runs(home)
        tidy_checkpoints(removal, home, studies, runs)
        tidy_runs(removal, home, studies, runs)
        tidy_pictures(removal, home, studies)
        tidy_caches(removal, home, studies, runs)
    tidy_drafts(removal, home)
    tidy_logs(removal, home)
    return removal
