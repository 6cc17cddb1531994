"""A proxy in the environment is not for this machine.

Where one is set for everybody (``http_proxy``) and nothing says that it is for others alone
(``no_proxy``), every library asks it for ``http://127.0.0.1``: at best it answers that it knows no
such server, at worst with its own machine's.
"""

from __future__ import annotations

import os

# Each library knows some of these spellings: urllib the brackets, requests the network.
_NAMES = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]")


def leave_out_proxies() -> None:
    """Have libraries of this process, and of those that it starts, ask loopback directly: where the
    environment names a proxy, ``no_proxy`` gets loopback's names beside what it has."""
    set_names = {name.lower() for name, value in os.environ.items() if value}
    if not any(name.endswith("_proxy") for name in set_names - {"no_proxy"}):
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    if "*" in names:
        return
    names += [name for name in _NAMES if name not in names]
    # Some read only one of the two, and none reads the other where both are set.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(names)
