"""Both databases: sound, with a write-ahead log, in a schema that the installed versions know."""

from __future__ import annotations

import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from ..storage.home import Home
from ..storage.server import MissingDriver, missing_driver
from ..storage.short_look import optuna_storage, short_engine
from ..storage.sqlite import mend, one, open_reading, quick_check, sqlite_file
from .checks import Check, bad, note, ok, said

_LONGEST = 20.0  # seconds that SQLite may read a file; a gigabyte takes a few
_REVISION = re.compile(r"^(down_revision|revision)\b.*=\s*[\"'](\w+)[\"']", re.MULTILINE)


class _SchemaError(Exception):
    """A schema that the installed version does not work with.

    Attributes:
        mend: what to type.
    """

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(found)
        self.mend = mend


def optuna_database(home: Home) -> Iterator[Check]:
    """Look at Optuna's storage: the home's file, or what MTL_STORAGE names.

    Raises:
        InputError: MTL_STORAGE is no database URL.
    """
    yield _database("optuna database", "MTL_STORAGE", home.storage_url, _optuna_schema)


def mlflow_database(home: Home) -> Iterator[Check]:
    """Look at MLflow's store where it is a database: the home's file, or one elsewhere.

    Raises:
        InputError: MLFLOW_TRACKING_URI is no database URL.
    """
    name, url = "mlflow database", home.mlflow_uri
    if "://" not in url or url.startswith("file:"):
        yield bad(name, f"{url} is no server and no database", "unset MLFLOW_TRACKING_URI")
        return
    yield _database(name, "MLFLOW_TRACKING_URI", url, _mlflow_schema)


def _database(name: str, variable: str, url: str, schema: Callable[[str], str]) -> Check:
    file = sqlite_file(variable, url)
    if file is None:
        return _elsewhere(name, variable, url, schema)
    if not file.exists():
        return ok(name, f"{file} (not there yet; the first study makes it)")
    return _sqlite(name, file, url, schema)


# ---- SQLite -------------------------------------------------------------------------------------


def _sqlite(name: str, file: Path, url: str, schema: Callable[[str], str]) -> Check:
    try:
        with closing(open_reading(file)) as connection:
            faults = quick_check(connection, _LONGEST)
            mode = one(connection, "PRAGMA journal_mode")
        if faults not in ("ok", None):
            return bad(name, f"{file} is damaged: {faults}", mend(file))
        version = schema(url)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            return note(name, f"{file} is locked by another process", "wait for it, and look again")
        return bad(name, f"{file} is damaged: {error}", mend(file))
    except _SchemaError as error:
        return bad(name, f"{file}: {error}", error.mend)
    sound = "sound" if faults else f"too large to be read whole in {_LONGEST:.0f} s"
    found = f"{file}: {file.stat().st_size / 1e6:.1f} MB, {sound}, {version}"
    if mode != "wal":
        return note(name, f"{found}, no write-ahead log yet", "the next study or training sets it")
    return ok(name, f"{found}, write-ahead log")


# ---- other databases ----------------------------------------------------------------------------


def _elsewhere(name: str, variable: str, url: str, schema: Callable[[str], str]) -> Check:
    from sqlalchemy.exc import SQLAlchemyError

    mend = f"start it, or put {variable} right; unset, the database is in the home"
    try:
        return ok(name, f"{url}: {_greeting(url)}, {schema(url)}")
    except _SchemaError as error:
        return bad(name, f"{url}: {error}", error.mend)
    except ImportError as error:
        driver = missing_driver(error)
        if driver is None and error.name:
            driver = MissingDriver(error.name, f"pip install {error.name}")
        if driver is None:
            return bad(name, f"{url} cannot be opened: {said(error)}", mend)
        return bad(name, f"{url}: the driver {driver.name} is missing", driver.mend)
    except SQLAlchemyError as error:
        return bad(name, f"{url} cannot be opened: {said(error)}", mend)


def _greeting(url: str) -> str:
    with short_engine(url) as engine, engine.connect() as connection:
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
    kind = {"postgresql": "PostgreSQL"}.get(engine.dialect.name, engine.dialect.name)
    return f"{kind} {version} answers"


# ---- schemas ------------------------------------------------------------------------------------


def _optuna_schema(url: str) -> str:
    """Say which version of Optuna's tables there is.

    Raises:
        _SchemaError: Optuna would refuse it.
    """
    with optuna_storage(url) as storage:
        if storage is None:
            return "no tables yet"
        has, known = storage.get_current_version(), storage.get_all_versions()
        head = storage.get_head_version()
    if has not in known:
        raise _SchemaError(f"made by a newer Optuna (schema {has})", "pip install -U optuna")
    if has != head:
        mend = f"optuna storage upgrade --storage {_typed(url, 'MTL_STORAGE')}"
        raise _SchemaError(f"made by an older Optuna (schema {has})", mend)
    return f"schema {has}"


def _typed(url: str, variable: str) -> str:
    """Spell an address for a shell; a server's by the variable, since its password is masked."""
    return shlex.quote(url) if sqlite_file(variable, url) else f'"${variable}"'


def _mlflow_schema(url: str) -> str:
    """Say which version of MLflow's tables there is.

    Raises:
        _SchemaError: MLflow would refuse it.
    """
    import sqlalchemy

    with short_engine(url) as engine:
        if not sqlalchemy.inspect(engine).has_table("alembic_version"):
            return "no tables yet"
        with engine.connect() as connection:
            asked = sqlalchemy.text("SELECT version_num FROM alembic_version")
            has = connection.execute(asked).scalar()
    known, heads = _mlflow_revisions()
    if known and has not in known:
        raise _SchemaError(f"made by a newer MLflow (schema {has})", "pip install -U mlflow")
    if heads and has not in heads:
        mend = f"mlflow db upgrade {_typed(url, 'MLFLOW_TRACKING_URI')}"
        raise _SchemaError(f"made by an older MLflow (schema {has})", mend)
    return f"schema {has}"


def _mlflow_revisions() -> tuple[set[str], set[str]]:
    """Return every revision that the installed MLflow knows, and the newest.

    Read from its migrations as text: importing MLflow takes seconds, and may be what is broken.
    """
    spec = find_spec("mlflow")
    folders = [] if spec is None else spec.submodule_search_locations or []
    known: set[str] = set()
    before: set[str] = set()
    for folder in folders:
        for file in Path(folder, "store", "db_migrations", "versions").glob("*.py"):
            for kind, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
                (known if kind == "revision" else before).add(revision)
    return known, known - before
