"""This machine's own addresses: what they are called, and asking without a proxy."""

from __future__ import annotations

import socket
import urllib.request
from ipaddress import ip_address
from urllib.parse import urlsplit


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
