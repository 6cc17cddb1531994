# Makes the database once, as the official image does: POSTGRES_PASSWORD (needed), POSTGRES_DB.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD-}" ]; then
        echo "POSTGRES_PASSWORD is not set" >&2
        exit 1
    fi
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    initdb --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 --pwfile="$password" >/dev/null
    rm "$password"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -w -o "-c listen_addresses=''" start >/dev/null
    createdb "${POSTGRES_DB:-postgres}" 2>/dev/null || true
    pg_ctl -w -m fast stop >/dev/null
fi
exec postgres -c 'listen_addresses=*' -c unix_socket_directories=/tmp,/var/run/postgresql
