"""Addresses that a server listens on: who reaches them, and under which names it may be asked."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from minbert.errors import InputError

LOOPBACK = "127.0.0.1"
_OWN_NAMES = ("localhost", LOOPBACK, "::1")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Address:
    """An address of this machine.

    Attributes:
        given: as the user wrote it. ip: the same as a number, which is what is listened on.
        others: further names under which others ask, such as a proxy's.
    """

    given: str
    ip: str
    others: tuple[str, ...] = ()

    @classmethod
    def resolve(cls, host: str, others: Iterable[str] = ()) -> Address:
        """Look an address up.

        Raises:
            InputError: it is none, or not of this machine; or one of the further names is none.
        """
        for name in others:
            if not _NAME.fullmatch(name):
                raise InputError(f"allowed host {name!r}: give a name without scheme and port")
        if not host:
            raise InputError("host is empty; 127.0.0.1 is this machine alone")
        try:
            found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise InputError(f"host {host!r} is not known; give an address of this machine") from (
                None
            )
        address = cls(host, str(found[0][4][0]), tuple(name.lower() for name in others))
        _check_ours(address)
        return address

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.ip else socket.AF_INET

    @property
    def loopback(self) -> bool:
        """Whether it is reachable from this machine only."""
        return ip_address(self.ip.partition("%")[0]).is_loopback

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all addresses of this machine (of its family)."""
        return ip_address(self.ip).is_unspecified

    @property
    def names(self) -> list[str]:
        """Names under which a server may be asked; any other is a foreign page's (rebinding)."""
        ours = () if self.loopback else (socket.gethostname(), *self._reachable())
        return sorted({name.lower() for name in (self.given, self.ip, *_OWN_NAMES, *ours)})

    @property
    def outside(self) -> list[str]:
        """Under which of them others reach it, as far as this machine knows."""
        ours = [] if self.loopback else [*self._reachable(), socket.gethostname().lower()]
        return list(dict.fromkeys([*self.others, *ours]))

    def url(self, port: int) -> str:
        """Return where a browser on this machine finds a server on a port."""
        shown = self.given
        if self.everywhere:
            shown = LOOPBACK if self.family == socket.AF_INET else "::1"
        return f"http://{bracketed(shown)}:{port}"

    def free_port(self, port: int, option: str) -> int:
        """Return a port that can be listened on: this one, or for 0 any free one.

        Raises:
            InputError: it is taken; the line names the option that chooses another.
        """
        with socket.socket(self.family, socket.SOCK_STREAM) as probe:
            # As the servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.ip, port))
            except OSError as error:
                raise InputError(
                    f"port {port} of {self.given} cannot be used: {error.strerror}; choose "
                    f"another with {option}, or 0 for any free one"
                ) from error
            return probe.getsockname()[1]

    def _reachable(self) -> list[str]:
        """The numbers behind which others find it."""
        if not self.everywhere:
            return [self.ip]
        import psutil

        cards = psutil.net_if_addrs().values()
        found = [c.address for card in cards for c in card if c.family == self.family]
        plain = [ip_address(ip) for ip in found if "%" not in ip]  # of one link alone
        return [str(ip) for ip in plain if not ip.is_loopback]


def bracketed(name: str) -> str:
    """Return a name as it stands in an address."""
    return f"[{name}]" if ":" in name else name


def _check_ours(address: Address) -> None:
    with socket.socket(address.family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address.ip, 0))
        except OSError as error:
            raise InputError(
                f"host {address.given} cannot be listened on: {error.strerror}; give an address "
                "of this machine"
            ) from error
