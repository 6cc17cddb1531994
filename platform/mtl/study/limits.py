"""What a study file's ``[limits]`` may say of its trials' models and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minbert import InputError
from minbert.common.messages import short

from .file import nearest

LIMITS = ("trainable_parameters", "model_bytes", "minutes")
"""What can be limited: attributes of a finished trial."""
_MOST = 1e18


def check_limits(limits: Mapping[str, Any]) -> None:
    """Check the ``[limits]`` of a study file.

    Raises:
        InputError: an unknown name, or a value that is no positive number.
    """
    for name, value in limits.items():
        if name not in LIMITS:
            raise InputError(f"limits.{name}: unknown; {nearest(name, LIMITS)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < _MOST:
            raise InputError(f"limits.{name} = {short(value)} does not fit; it should be above 0")
