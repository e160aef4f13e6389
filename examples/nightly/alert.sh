#!/bin/sh
# Says that a night failed, and what is to be done: by mail here, by whatever you have.
set -u
unit=${1:-rowdelta}
case ${MONITOR_EXIT_STATUS:-} in
  1) todo="look at the documents that failed: rowdelta status" ;;
  2) todo="it could not run: see the last line of its log" ;;
  3) todo="is the feed whole? If it is right, run it once with --allow-deletes N" ;;
  6) todo="locks, or a server that is away; it was tried again" ;;
  *) todo="see its log" ;;
esac
{
  echo "$unit ended with ${MONITOR_EXIT_STATUS:-an error}: $todo"
  journalctl --unit "$unit" --lines 30 --no-pager 2>/dev/null
} | ${ALERT:-mail -s "$unit failed" data@example.org}
