"""``mtl doctor``: looks at everything that may be wrong here, and says how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minbert import InputError

from ..storage.home import Home
from .checks import Check, bad, guarded
from .databases import mlflow_database, optuna_database
from .home import disk, writable
from .inputs import check_backbone, check_data
from .leases import leases
from .machine import cores, gpu, memory
from .moved import moved
from .packages import packages
from .servers import port_free, tracking_server
from .studies import unfinished
from .waiting import waiting_runs

if TYPE_CHECKING:
    from minbert import Config


def diagnose(config: Config, ports: Sequence[tuple[str, int]] = ()) -> list[Check]:
    """Look at packages, home, databases, servers, machine, backbone, data and studies.

    Nothing is made and nothing is changed, and no fault raises: each becomes a check.

    Args:
        config: names the backbone, the data and the device.
        ports: option and number of each port that ``mtl ui`` takes, MLflow's first.
    """
    checks = guarded("packages", packages)
    try:
        home = Home.resolve(create=False)
    except (InputError, OSError) as error:  # ~somebody, or a working folder that is gone
        checks.append(bad("home", str(error), "set MTL_HOME to a folder"))
        return checks
    checks += guarded("home", writable, home) + guarded("disk", disk, home)
    checks += _stores(home, ports)
    checks += guarded("cores", cores) + guarded("memory", memory)
    checks += guarded("gpu", gpu, config.train.device)
    checks += guarded("backbone", check_backbone, config.backbone, home.cache)
    checks += guarded("data", check_data, config.data.path, home.cache)
    return checks


def _stores(home: Home, ports: Sequence[tuple[str, int]]) -> list[Check]:
    """Look at both stores, at the studies in them, and at the ports that show them."""
    remote = home.mlflow_is_server
    optuna = guarded("optuna database", optuna_database, home)
    mlflow = (
        guarded("mlflow server", tracking_server, home.mlflow_uri)
        if remote
        else guarded("mlflow database", mlflow_database, home)
    )
    checks = [*optuna, *mlflow]
    if not remote and not any(check.state == "bad" for check in mlflow):
        checks += guarded("moved", moved, home)
    if not any(check.state == "bad" for check in optuna):
        checks += guarded("waiting runs", waiting_runs, home)
        checks += guarded("studies", unfinished, home) + guarded("leases", leases, home)
    for option, port in ports[1:] if remote else ports:  # a remote MLflow needs no port here
        checks += guarded(f"port {port}", port_free, option, port)
    return checks
