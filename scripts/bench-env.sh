#!/bin/sh
# Make .venv-bench: what `make bench` runs in. The bars count on Debian's own Python, which is built with optimisation;
# .venv may be another one, so the bench has an environment of its own, from the same locks. PYTHON names another.
set -eu
cd "$(dirname "$0")/.."

venv=.venv-bench
python=${PYTHON:-/usr/bin/python3.11}
lock=requirements-dev.lock

say() { echo "bench-env: $*" >&2; }

command -v "$python" >/dev/null || {
    python=$(command -v python3.11 || command -v python3)
    say "Debian's Python 3.11 is not here: using $python. The bars are not meant for it."
}
base=$(command -v "$python")
if [ "$base" = "$(cat $venv/base 2>/dev/null)" ] && cmp -s $lock $venv/$lock; then
    exit 0
fi
say "making $venv with $base"
rm -rf $venv
"$base" -m venv $venv || {
    say "no environment could be made. On Debian: apt-get install python3-venv"
    exit 1
}
$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r $lock
$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
    -r tests/bench/requirements.txt || say "py-spy could not be installed: no --flame"
echo "$PWD" >"$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mesh-checkout.pth"
cp $lock $venv/
echo "$base" >$venv/base
