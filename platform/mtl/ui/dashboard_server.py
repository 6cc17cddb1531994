"""The dashboard alone, as a container runs it: ``python -m mtl.ui.dashboard_server``.

It is read-only, as ``mtl ui`` makes it, and asks for a password if MTL_UI_PASSWORD is set. Without
one whoever reaches the address reads every study. So an address that others reach has to be asked
for, and whoever asks sees to it that only the right ones do (docker-compose.yml publishes the port
on loopback alone).
"""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from minbert.errors import InputError

from ..common.masking import clean
from ..storage.home import Home
from .addresses import Address
from .dashboard import make_dashboard
from .login import find_login


def main() -> int:
    """Serve the home's studies until SIGTERM or SIGINT; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m mtl.ui.dashboard_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    try:
        address, login = Address.resolve(options.host), find_login(needed=None)
        server = make_dashboard(Home.resolve_to_look(), address, options.port, False, login)
    except (InputError, OSError, OverflowError) as error:
        print(f"mtl: {clean(str(error))}", file=sys.stderr)
        return 2
    asks = "" if login is None else f", asks for the name {login.user} and the password"
    print(f"Optuna dashboard on {options.host}:{server.server_port} (read-only{asks})", flush=True)
    try:
        server.serve_forever(0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
