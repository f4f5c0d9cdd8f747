# What the public image's entry point does: a database of the wanted name, the schema, then the server.
set -eu
programs=$(ls -d /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data/cluster
mkdir -p "$data"
chown -R postgres "$(dirname "$data")"
cd /tmp
as() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -e "$data/PG_VERSION" ]; then
    as "$programs/initdb" -A trust -U "$POSTGRES_USER" -D "$data" >/dev/null
    echo "host all all all trust" >>"$data/pg_hba.conf"
    as "$programs/pg_ctl" -D "$data" -w -o "-k /tmp -c listen_addresses=" start >/dev/null
    as "$programs/createdb" -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
    as "$programs/psql" -q -h /tmp -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f /docker-entrypoint-initdb.d/schema.sql
    as "$programs/pg_ctl" -D "$data" -w stop >/dev/null
fi
exec setpriv --reuid postgres --regid postgres --clear-groups \
    "$programs/postgres" -D "$data" -k /tmp -c "listen_addresses=*"
