"""What Ray reads of the environment when it is imported, so it has to be there before."""

from __future__ import annotations

import os
import secrets


def settle_ray() -> None:
    """Have Ray tell nothing to anybody, and a cluster that we start let nobody else in.

    What the environment says already stays: a cluster at $RAY_ADDRESS has its own way to let
    people in, RAY_AUTH_MODE and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A call after the cluster was lost shall fail, and not begin or join another one.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if not os.environ.get("RAY_ADDRESS") and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
