"""The study of docker-compose.yml: ``python -m mtl.cli.study_service``, ``mtl study run`` by what
MTL_STUDY and MTL_OPTIONS say.

They come as variables and are taken apart here: Docker Compose splits a command into words after it
has filled in variables, podman-compose before, so that an option with its value would be one word
there and a variable without a value an empty one.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from minbert.errors import InputError

STUDY_VARIABLE, OPTIONS_VARIABLE = "MTL_STUDY", "MTL_OPTIONS"
_STUDY = "lora_sweep"


def command(given: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the words of ``mtl study run``: the study, the given options, then those of
    MTL_OPTIONS, which are quoted as in a shell; nothing in them is expanded.

    Raises:
        InputError: a quotation in MTL_OPTIONS is not closed.
    """
    study = environment.get(STUDY_VARIABLE, "").strip() or _STUDY
    try:
        options = shlex.split(environment.get(OPTIONS_VARIABLE, ""))
    except ValueError as error:
        raise InputError(
            f"{OPTIONS_VARIABLE} cannot be split into words: {error}; quote as in a shell, "
            """--set 'pals.tasks=["sst"]'"""
        ) from None
    return ["mtl", "study", "run", study, *given, *options]


def main() -> int:
    """Become ``mtl study run``, which gets this process' signals then; return 2 for bad input."""
    try:
        words = command(sys.argv[1:], os.environ)
        os.execvp(words[0], words)
    except (InputError, OSError) as error:
        print(f"mtl: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
