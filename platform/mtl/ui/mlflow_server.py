"""MLflow's own server application in one process: ``python -m mtl.ui.mlflow_server``.

The command ``mlflow server`` does the same through two processes that each import all of MLflow,
which doubles the seconds until the first page. What to serve comes as JSON on standard input
(`mtl.ui.mlflow_process`), since an address of a database may hold a password.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..common import process
from ..common.masking import mask_streams, secrets_of
from ..storage.urls import file_url, sqlite_url
from ..tracking.places import Places, translate
from ..tracking.store import sqlite_file
from .login import Login, MlflowLogin


def main() -> None:
    """Serve a store until SIGTERM, or until the process that started this one is gone."""
    process.tune_gc()
    _watch_parent()
    given = json.load(sys.stdin)
    login = Login(**given["login"]) if given["login"] else None
    mask_streams({*secrets_of(given["store"]), *([login.password] if login else [])})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an end that tidies up

    # Before MLflow's: its security middleware is on only where a server is loaded already.
    import uvicorn  # isort: skip
    from mlflow.server.handlers import initialize_backend_stores

    root = Path(given["artifacts"])
    if (file := sqlite_file(given["store"])) is not None:
        translate(file, Places(root, given["own"]))
    initialize_backend_stores(given["store"], given["store"], file_url(root))
    with _application(login) as app:
        uvicorn.run(
            app,
            host=given["host"],
            port=given["port"],
            log_level="warning",
            timeout_graceful_shutdown=2,  # an open page does not hold up the end
        )


@contextmanager
def _application(login: Login | None) -> Iterator[Callable]:
    """Make MLflow's application; with a login its basic-auth one, with our check in front.

    Its database of users lasts as long as the server: it would keep a password that was changed.
    """
    if login is None:
        from mlflow.server.fastapi_app import app

        yield app
        return
    with tempfile.TemporaryDirectory(prefix="mtl-ui-") as folder:  # this user's alone
        settings = _auth_settings(Path(folder), login)
        os.environ.update(settings)
        from mlflow.server.auth import create_app

        app = create_app()
        for name in settings:
            del os.environ[name]
        yield MlflowLogin(app, login)


def _auth_settings(folder: Path, login: Login) -> dict[str, str]:
    """Write the configuration of MLflow's basic-auth application; return its environment."""
    database = sqlite_url(folder / "users.db").replace("%", "%%")  # the file's format expands a %
    (folder / "auth.ini").write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {database}\n"
        "auth_cache_ttl_seconds = 3600\n",  # its hash is meant to be slow: once, not each time
        encoding="utf-8",
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": login.user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": login.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "_MLFLOW_SGI_NAME": "uvicorn",  # as `mlflow server` says it, for the whole application
    }


def _watch_parent() -> None:
    """End this process when its parent dies without having ended it (kill -9)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    try:
        main()
    finally:
        process.prepare_exit()
