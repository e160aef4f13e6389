#!/usr/bin/env bash
# Runs the examples of this folder against a PostgreSQL of their own, on a Unix socket in a temporary directory, and checks
# what they print: examples/sql/test.sh
#
# The server's programs are in ROWDELTA_PG_BIN, or where packages put them. Without Node, npm or its registry the examples
# in Node are passed over, which is said. Without PostgreSQL all are; in CI (CI=true) that is a failure.
set -euo pipefail
cd "$(dirname "$0")"
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" ../../sql/rowdelta.control)
core=$PWD/../../sql/rowdelta--$version.sql

# Nothing of the caller's may lead to a server that is somebody's.
unset DATABASE_URL $(compgen -e PG || true)

# PostgreSQL refuses to run as root.
as_owner() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

found() {
  local dir dirs
  mapfile -t dirs < <(
    exec 2>/dev/null
    pg_config --bindir
    ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV
    echo /usr/local/pgsql/bin
    echo /usr/bin
  )
  [ -z "${ROWDELTA_PG_BIN:-}" ] || dirs=("$ROWDELTA_PG_BIN")
  for dir in "${dirs[@]}"; do
    if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && [ -x "$dir/psql" ]; then
      echo "$dir"
      return
    fi
  done
}
bin=$(found)
if [ -z "$bin" ]; then
  echo "skipped: no PostgreSQL"
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi
PATH=$bin:$PATH

# The path of a socket must be short, so not in TMPDIR.
temporary=$(mktemp -d /tmp/rowdelta-sql.XXXXXX)
step=
stop() {
  [ -z "$step" ] || kill "$step" 2>/dev/null || true
  [ ! -e "$temporary/server/data/postmaster.pid" ] || as_owner "$bin/pg_ctl" -D "$temporary/server/data" -m immediate stop >/dev/null || true
  rm -rf "$temporary"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$temporary/server"
if [ "$(id -u)" = 0 ]; then
  # The owner of the server passes through, and reads nothing.
  chmod 711 "$temporary"
  chown postgres "$temporary/server"
fi
chmod 700 "$temporary/server"
as_owner "$bin/initdb" -D "$temporary/server/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >/dev/null
as_owner "$bin/pg_ctl" -D "$temporary/server/data" -l "$temporary/server/log" -w \
  -o "-c listen_addresses='' -c unix_socket_directories=$temporary/server -c fsync=off" start >/dev/null ||
  { cat "$temporary/server/log" >&2; exit 1; }
export PGHOST=$temporary/server PGUSER=postgres PGDATABASE=postgres
echo "-- $(psql -XAtc 'SELECT version()' | cut -d, -f1)"

sql() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }

# check WHAT EXPECTED SEEN
check() {
  if [ "$2" != "$3" ]; then
    printf 'failed: %s\n--- expected\n%s\n--- seen\n%s\n' "$@" >&2
    exit 1
  fi
  echo "ok: $1"
}

# contains WHAT PATTERN SEEN
contains() { if [[ $3 == *"$2"* ]]; then check "$1" x x; else check "$1" "…$2…" "$3"; fi; }

# A database for each example: the core, and but for the first the tables and the mapping.
createdb core
sql -1 -d core -f "$core"
createdb -T core shop
createdb -T core tables
sql -d tables -f tables.sql >/dev/null
for name in node step prisma; do createdb -T tables "$name"; done

# ── psql ──
psql -X -d shop -f shop.sql >"$temporary/shop.out" 2>"$temporary/shop.err" || { cat "$temporary/shop.err" >&2; exit 1; }
diff -u shop.out "$temporary/shop.out"
check "shop.sql prints shop.out" 1 "$(grep -c ERROR: "$temporary/shop.err")"

# ── Node ──
for tool in node npm; do
  command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 0; }
done
if ! npm view pg@8.23.1 version >/dev/null 2>&1; then
  echo "skipped: no npm registry"
  exit 0
fi
# A copy, so that nothing is left in this folder.
cp -R node "$temporary/node"
rm -rf "$temporary"/node{,/prisma}/{node_modules,generated}
cd "$temporary/node"
npm_ci=(npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
"${npm_ci[@]}" >/dev/null

# job FILE: the nightly job's exit code and what it prints.
job() { local code=0 said; said=$(node pg.mjs shop "$1" 2>&1) || code=$?; printf '%s\n%s' "$code" "$said"; }

export PGDATABASE=node
check "pg.mjs: a few orders" \
  $'0\n{"documents":{"read":3,"new":3,"changed":0,"unchanged":0,"withheld":0,"failed":0},"rows_written":12}' "$(job orders.ndjson)"

# More than two calls' worth, with a number that a double does not hold.
for ((i = 1; i <= 1200; i++)); do
  echo '{"number": "'N$i'", "customer": {"name": 9007199254740993}, "placedAt": null, "lines": [{"sku": "tea", "qty": 1}], "tags": ["gift"]}'
done >feed.ndjson
check "pg.mjs: first night" \
  $'0\n{"documents":{"read":1200,"new":1200,"changed":0,"unchanged":0,"withheld":0,"failed":0},"rows_written":3600}' "$(job feed.ndjson)"
check "pg.mjs: a long number" 9007199254740993 "$(sql -c "SELECT customer_name FROM orders WHERE number = 'N1'")"
writers='SELECT md5(string_agg(w.x, NULL ORDER BY w.x)) FROM (SELECT id || $$ $$ || xmin AS x FROM orders
         UNION ALL SELECT id || $$ $$ || xmin FROM order_lines UNION ALL SELECT order_id || $$ $$ || xmin FROM order_tag) AS w'
before=$(sql -c "$writers")
check "pg.mjs: second night" \
  $'0\n{"documents":{"read":1200,"new":0,"changed":0,"unchanged":1200,"withheld":0,"failed":0},"rows_written":0}' "$(job feed.ndjson)"
check "pg.mjs: no row is written" "$before" "$(sql -c "$writers")"

sed -e '7s/"qty": 1/"qty": 0/' -e '8s/"qty": 1/"qty": 2/' -e '600s/}$//' -e '1100s/N1100/\\u0000/' feed.ndjson >bad.ndjson
check "pg.mjs: documents that fail" '1
{"documents":{"read":1200,"new":0,"changed":1,"unchanged":1196,"withheld":0,"failed":3},"rows_written":1}
line 7: N7: lines: new row for relation "order_lines" violates check constraint "order_lines_quantity_check"
line 600: not JSON: The input string ended unexpectedly
line 1100: unsupported Unicode escape sequence: \u0000 cannot be converted to text' "$(job bad.ndjson)"

# Another session holds a row: that may pass.
sed '9s/"qty": 1/"qty": 2/' feed.ndjson >locked.ndjson
coproc holder { exec psql -XAtq; }
echo "BEGIN; SELECT 'held' FROM order_lines WHERE order_id = (SELECT id FROM orders WHERE number = 'N9') FOR UPDATE;" >&"${holder[1]}"
read -r -u "${holder[0]}" held
check "another session holds a row" held "$held"
contains "pg.mjs: exit code 6" $'6\n' "$(PGOPTIONS='-c lock_timeout=100ms' job locked.ndjson)"
echo 'ROLLBACK; \q' >&"${holder[1]}"
wait "$holder_PID" || true
contains "pg.mjs: and again" $'0\n' "$(job locked.ndjson)"

sql -c "INSERT INTO rowdelta.guard VALUES ('shop', 0, NULL)"
sed '9s/{"sku.*}\]/]/' locked.ndjson >fewer.ndjson
check "pg.mjs: withheld" $'3
{"documents":{"read":1200,"new":0,"changed":0,"unchanged":1199,"withheld":1,"failed":0},"rows_written":0}
1 documents were withheld: too many rows would be deleted' "$(job fewer.ndjson)"
contains "pg.mjs: no file, exit code 2" $'2\n' "$(job nowhere.ndjson)"

export PGDATABASE=step
mkfifo address
node step.mjs >address 2>step.err &
step=$!
read -r url <address
post() {
  node -e 'fetch(process.argv[1], { method: "POST", body: process.argv[2] })
           .then(async (answer) => console.log(answer.status, await answer.text()))' "$url/sync/$1" "$2"
}
good='{"number": "H1", "lines": [{"sku": "tea", "qty": 1}]}'
contains "step.mjs: 200" '200 ' "$(post shop "[$good]")"
answer=$(post shop "[$good, {\"number\": \"H2\", \"lines\": [{\"sku\": \"tea\", \"qty\": 0}]}]")
contains "step.mjs: 500" '500 {"message":"1 documents failed, 0 were withheld","retryable":false,"relations":["lines"]' "$answer"
contains "step.mjs: the document" '"document":"H2"' "$answer"
answer=$(post shop "[$good, {\"number\": \"H2\", \"lines\": [{\"sku\": \"tea\", \"qty\": 1}]}]")
contains "step.mjs: 200 when it is mended" '200 ' "$answer"
contains "step.mjs: what is in is skipped" '"new":1,"read":2,"failed":0,"changed":0,"removed":0,"repeated":0,"withheld":0,"unchanged":1' "$answer"
contains "step.mjs: 400" '400 ' "$(post shop '[{]')"
contains "step.mjs: 404" '404 ' "$(post nothing '[]')"
kill "$step"
wait "$step"
step=
check "step.mjs: ends when it is told to" "" "$(cat step.err)"

# `prisma generate` itself needs no engine, but fetches that of `prisma migrate` first, from a host of its own. That there is
# one already keeps it from that.
export PGDATABASE=prisma CHECKPOINT_DISABLE=1
cd prisma
"${npm_ci[@]}" >/dev/null
PRISMA_SCHEMA_ENGINE_BINARY=$(type -P true) npx prisma generate >generate.out 2>&1 || { cat generate.out >&2; exit 1; }
check "prisma/orders.ts" 'first: new 1
again: unchanged 1
stored: 3 tea at 3.5, one mug less
failed: P1: lines: new row for relation "order_lines" violates check constraint "order_lines_quantity_check"' "$(npx tsx orders.ts 2>&1)"
