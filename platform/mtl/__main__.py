"""The command ``mtl`` from its first line on: its console script, and ``python -m mtl``.

An interrupt is answered from here on; the command line's imports, which take a while, come after.
"""

import os
import signal


def main() -> None:
    """Run the command line and leave with its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored (nohup)
        signal.signal(signal.SIGINT, _leave)
    from mtl.cli import main as run

    run()


def _leave(number: int, frame: object) -> None:
    # At once: an exception in the middle of an import may be taken for another.
    os.write(2, b"mtl: interrupted before anything began; the same command begins it\n")
    os._exit(130)


if __name__ == "__main__":
    main()
