"""Where libraries keep what is theirs: in the user's own folder, or in the home where that fails.

Cron, services and containers run programs without HOME, as users that the password file does not
know, or with a folder that they cannot write. MLflow's import would fail then, Hugging Face's hub
client would make a folder called ``~``, Matplotlib would find out about all fonts at each start.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

# Read by libraries when they are imported: which variable moves which of the user's folders.
_MOVED = {
    "MPLCONFIGDIR": (".config/matplotlib", ".cache/matplotlib"),
    "HF_XET_CACHE": (".cache/huggingface",),
}


def settle_user_folders(place: Path) -> None:
    """See to it that libraries find folders, in this process and those that it starts.

    What the environment says stays, where it can be used. Nothing is made here.

    Args:
        place: a folder for what has no other.
    """
    user = os.environ.get("HOME") or _recorded()
    os.environ["HOME"] = user or str(place)
    for variable, folders in _MOVED.items():
        if user and not all(_can_be_written(Path(user, folder)) for folder in folders):
            os.environ.setdefault(variable, str(place / variable.lower()))


def _recorded() -> str | None:
    """The folder that the password file has for this user, if it has the user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir or None
    except KeyError:
        return None


def _can_be_written(folder: Path) -> bool:
    """Say whether a folder can be written, or made."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
