#!/bin/sh
# One night: rowdelta sync, and what its exit codes ask for.
#
#   night.sh -m calls.toml --complete calls.ndjson.gz        arguments are those of `rowdelta sync`
#
# Silent when all is well, so that cron sends mail only when somebody is needed. DATABASE_URL (or libpq's variables) names
# the database. RETRIES (3) tries after exit code 6, PAUSE (300) seconds between them; ROWDELTA is the command.
set -u

log=$(mktemp)
trap 'rm -f "$log"' EXIT

left=${RETRIES:-3}
while :; do
  "${ROWDELTA:-rowdelta}" sync --progress never "$@" >"$log" 2>&1
  code=$?
  [ "$code" -eq 6 ] && [ "$left" -gt 0 ] || break
  left=$((left - 1))
  # What succeeded is skipped then.
  sleep "${PAUSE:-300}"
done

case $code in
  0) exit 0 ;;
  1) say="documents failed, and trying again does not help: look at them. The others are in." ;;
  2) say="could not run, or not to the end: usage, mapping, connection, or a feed that breaks off." ;;
  3) say="deletions were withheld. Is the feed whole? If it is right, run it once with --allow-deletes N." ;;
  4) exit 0 ;; # Another run is at work, and does it.
  6) say="documents failed, and trying again did not help: locks, or a server that is away." ;;
  *) say="ended with $code." ;;
esac
echo "rowdelta sync $*: $say"
cat "$log"
exit "$code"
