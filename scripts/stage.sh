#!/bin/sh
# One stage of the tests with real programs, by pytest; what follows is handed to it.
#
# They share their machine with whatever else it does, so that a time of the test's own can run out without anything
# being wrong. Up to three that failed are run again, one after the other with nothing beside them, and named aloud. Who
# fails twice has failed, and so have four. Nothing pure comes this way: there a failure is a failure.
set -u
cd "$(dirname "$0")/.." || exit
most=3
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
.venv/bin/python -m pytest -o cache_dir="$cache" --durations=15 "$@" && exit 0
status=$?
failed=$(.venv/bin/python - "$cache" <<'PY'
import json, pathlib, sys
kept = pathlib.Path(sys.argv[1], "v/cache/lastfailed")
print(*(json.loads(kept.read_text()) if kept.exists() else ()), sep="\n")
PY
)
count=$(printf '%s' "$failed" | grep -c .)
if [ $status -ne 1 ] || [ "$count" -eq 0 ] || [ "$count" -gt $most ]; then
    exit $status
fi
printf '\nSECOND TRY of %s test(s), alone:\n%s\n\n' "$count" "$failed"
.venv/bin/python -m pytest -o cache_dir="$cache" "$@" -n 0 --last-failed --last-failed-no-failures none || exit $?
printf '\nSECOND TRY went well; the first had failed in:\n%s\n' "$failed"
