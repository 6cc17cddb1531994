"""From an error to one line and an exit code.

0: done. 1: some trial failed, or there is nothing to show. 2: bad input. 130: interrupted.
"""

import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from minbert.errors import InputError

from ..common.faults import explain, unreadable
from ..common.masking import clean

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_EMPTY = re.compile(r"--[\w-]+=")
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run(command: click.Command, args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; whatever goes wrong is said in one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot print α shows ?
    # It logs the traceback of each error of its database, and raises the error, too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        _hear_interrupts()
        _check_text(sys.argv[1:] if args is None else args)
        code = command.main(args=args, prog_name="mtl", standalone_mode=False)
        sys.stdout.flush()
        return code or DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except click.UsageError as error:
        return _say(_usage(error), BAD_INPUT)
    except (InputError, click.ClickException) as error:
        return _say(str(error), BAD_INPUT)
    except (KeyboardInterrupt, click.Abort) as error:
        return _say(str(error) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        return FAILED
    except Exception as error:  # noqa: BLE001 (the last resort: nobody is shown a traceback)
        if fault := explain(error, _home()):
            _empty_stdout()
            return _say(fault, BAD_INPUT)
        if damage := unreadable(error, _home()):
            return _say(f"{damage}; {_log(error)}", BAD_INPUT)
        return _say(f"{_brief(error)}; this is a fault of mtl, {_log(error)}", FAILED)


def _hear_interrupts() -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt; the handler until now is `__main__`'s."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # nohup, or a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as good as Ctrl-C


def _check_text(args: Sequence[str]) -> None:
    """Refuse arguments that no file, database or page could hold.

    Raises:
        InputError: one is no UTF-8 text, or has a NUL character (as no shell can give it); one is
            empty, where a script's variable was: an empty path would be the working folder.
    """
    for before, arg in zip(("mtl", *args), args, strict=False):
        if not arg or _EMPTY.fullmatch(arg):
            what = f"the value in {arg}" if arg else f"the argument after {before}"
            raise InputError(f"{what} is empty: give one, or leave it out")
        if "\0" in arg or any("\ud800" <= c <= "\udfff" for c in arg):
            raise InputError(f"the argument {ascii(arg)} is not text: use UTF-8, without NUL")


def _say(text: str, code: int) -> int:
    line = _CONTROL.sub(" ", clean(text))  # nothing of it steers the terminal
    click.echo(f"mtl: {' '.join(line.split())}", err=True)
    return code


def _usage(error: click.UsageError) -> str:
    message = error.format_message().rstrip(".")
    return f"{message} (see {error.ctx.command_path} --help)" if error.ctx else message


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _log(error: Exception) -> str:
    """Write the traceback into the home's logs; return words that say where."""
    text = clean("".join(traceback.format_exception(error)))
    logs = _home() / "logs"
    file = logs / f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError:
        click.echo(text, err=True)
        return "its traceback stands above"
    return f"its traceback is in {file}"


def _home() -> Path:
    return Path(os.environ.get("MTL_HOME") or ".mtl").absolute()


def _empty_stdout() -> None:
    """Write what standard output still holds, if it lies on a disk that takes it."""
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()


def _forget_stdout() -> None:
    """Point standard output at nothing, or Python complains once more when it leaves."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
