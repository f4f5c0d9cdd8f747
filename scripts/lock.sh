#!/bin/sh
# Pin every dependency, with the hash of every file that may serve it: `make lock`. No package host is named in the
# result, so it installs from whatever index the machine uses. Compile with the oldest Python we support: its
# dependencies are a superset of those of newer ones.
set -eu
cd "$(dirname "$0")/.."

tools=.cache/lock
if ! [ -x "$tools/bin/pip-compile" ]; then
    echo "lock: making $tools" >&2
    "${PYTHON:-python3.11}" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools
fi

compile() { # compile OUTPUT SOURCE [option...]
    output=$1 source=$2
    shift 2
    temporary=$tools/new.lock
    cp "$output" "$temporary" 2>/dev/null || : >"$temporary" # what is pinned stays, unless --upgrade is asked for
    "$tools/bin/pip-compile" --quiet --strip-extras --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
        --output-file "$temporary" "$@" "$source"
    {
        echo "# Made by \`make lock\` from pyproject.toml; do not edit."
        grep -v '^# Made by' "$temporary"
    } >"$output"
    echo "lock: $output: $(grep -c '==' "$output") packages" >&2
}

compile requirements.lock pyproject.toml "$@"
compile requirements-dev.lock pyproject.toml --extra dev --constraint requirements.lock "$@"
compile deploy/image/build.lock deploy/image/build.in --allow-unsafe "$@" # setuptools is what pip-tools means by unsafe
