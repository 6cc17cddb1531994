"""MLflow's own server application in one process: ``python -m mtl.mlflow_server``.

The command ``mlflow server`` does the same through two processes that each import all of MLflow,
which doubles the seconds until the first page.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time


def main() -> None:
    """Serve a store until SIGTERM, or until the process that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m mtl.mlflow_server", description=__doc__)
    parser.add_argument("--store", required=True, help="tracking URI of the store")
    parser.add_argument("--artifacts", required=True, help="root of new experiments' artifacts")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    _watch_parent()

    # Before MLflow's: its security middleware is on only where a server is loaded already.
    import uvicorn  # isort: skip
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(options.store, options.store, options.artifacts)
    from mlflow.server.fastapi_app import app

    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=2,  # an open page does not hold up the end
    )


def _watch_parent() -> None:
    """End this process when its parent dies without having ended it (kill -9)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    main()
