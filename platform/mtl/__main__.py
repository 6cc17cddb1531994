"""The command ``mtl`` from its first line on: its console script, and ``python -m mtl``.

An interrupt is answered from here on; the command line's imports, which take a while, come after.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    _fill_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored (nohup)
        signal.signal(signal.SIGINT, _leave)
    from .cli.main import main as run

    run()


def _fill_streams() -> None:
    """Have standard streams that are closed (``>&-``) lead nowhere. A database that is opened later
    would get their numbers, and with them what libraries and workers print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the stream's own
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115


def _leave(number: int, frame: object) -> None:
    # At once: an exception in the middle of an import may be taken for another.
    os.write(2, b"mtl: interrupted before anything began; the same command begins it\n")
    os._exit(130)


if __name__ == "__main__":
    main()
