"""This machine's own addresses, before which no proxy stands.

Where a proxy is set for everybody (``http_proxy``) and nothing says that it is for other machines
(``no_proxy``), every library asks the proxy for ``http://127.0.0.1``: at best it answers that it
knows no such server, at worst with its own machine's.
"""

from __future__ import annotations

import os
import socket
import urllib.request
from ipaddress import ip_address
from urllib.parse import urlsplit

# Each library knows some of these spellings: urllib the brackets, requests the network.
_NAMES = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]")


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or number, without brackets, is this machine under any network."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        number = ip_address(name.partition("%")[0])
    except ValueError:
        return _is_short_loopback(name)
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def _is_short_loopback(name: str) -> bool:
    """Tell whether a name is a number as the system reads it, too: 127.1."""
    try:
        return socket.inet_aton(name)[0] == 127
    except (OSError, UnicodeError):
        return False


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


def opener(url: str) -> urllib.request.OpenerDirector:
    """Return what opens an address: through the proxies of the environment, but for loopback."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # brackets that hold no number: whoever opens it says so
        host = ""
    return direct() if is_loopback(host) else urllib.request.build_opener()


def direct() -> urllib.request.OpenerDirector:
    """Return what opens addresses without any proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
