#!/bin/sh
# Make .venv ready: `scripts/setup.sh run` to use mesh, `scripts/setup.sh dev` to test it too.
#
# Everything is compared by content: as long as the lock files, this checkout's place and the interpreter are what they
# were, a second run only compares and returns. The project itself is put on the path of .venv, not copied: what you
# edit is what runs. Nothing outside .venv is touched.
set -eu
cd "$(dirname "$0")/.."

OLDEST="3.11"
CANDIDATES="python3.13 python3.12 python3.11 python3.14 python3"

say() { echo "setup: $*" >&2; }
die() {
    for line in "$@"; do echo "setup: $line" >&2; done
    exit 1
}

# ---- which Python --------------------------------------------------------------------------------------------------

# Print "VERSION VERDICT" for an interpreter; the verdict is ok, old or incomplete (no venv: Debian ships it apart).
probe() {
    "$1" - <<'PROBE' 2>/dev/null
import sys
version = "%d.%d.%d" % tuple(sys.version_info[:3])
verdict = "ok"
try:
    import ensurepip, ssl, venv
except ImportError:
    verdict = "incomplete"
if sys.version_info < (3, 11):
    verdict = "old"
print(version, verdict)
PROBE
}

# Set PYTHON_FOUND to the first interpreter that will do; otherwise say what was seen, what is needed and how to get it.
find_python() {
    seen="" incomplete=""
    for name in ${PYTHON:-$CANDIDATES}; do
        path=$(command -v "$name" 2>/dev/null) || continue
        answer=$(probe "$path") || continue # a shim without a Python behind it, for example
        version=${answer% *}
        case $answer in
        *" ok") PYTHON_FOUND=$path PYTHON_VERSION=$version && return ;;
        *" incomplete") incomplete="$path" incomplete_version=${version%.*} ;;
        esac
        seen="$seen $path ($version)"
    done
    if [ -n "$incomplete" ]; then
        die "$incomplete is Python $incomplete_version without venv and ensurepip, which make the environment." \
            "On Debian and Ubuntu: apt-get install python$incomplete_version-venv    then run this again."
    fi
    if [ -n "${PYTHON:-}" ]; then
        die "PYTHON=$PYTHON will not do:${seen:- no such program}. Python $OLDEST or newer is needed." \
            "Unset PYTHON to have one looked for, or name another: make demo PYTHON=/path/to/python$OLDEST"
    fi
    die "no Python $OLDEST or newer. Found:${seen:- none at all}. Looked for: $CANDIDATES." \
        "On Debian 12, Ubuntu 24.04 and newer: apt-get install python3 python3-venv    On Fedora: dnf install python3" \
        "Elsewhere, with pyenv: pyenv install 3.13    If you have one already: make demo PYTHON=/path/to/python3.13"
}

# ---- the environment -----------------------------------------------------------------------------------------------

place() { printf 'setup 1\n%s\n' "$PWD"; } # what .venv depends on besides the locks

usable() { [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

placed() { [ "$(place)" = "$(cat .venv/mesh-place 2>/dev/null)" ]; }

# An environment of ours that was moved must be made anew (its programs name their old place); one of yours is only used.
standing() {
    usable || return
    [ ! -e .venv/mesh-made ] || placed
}

make_environment() {
    find_python
    if [ -e .venv ]; then
        [ -e .venv/mesh-made ] || die "there is a .venv here that is not ours and has no working Python $OLDEST." \
            "Move it away, then run this again."
        rm -rf .venv
    fi
    say "Python $PYTHON_VERSION ($PYTHON_FOUND); making .venv"
    mkdir .venv
    : >.venv/mesh-made
    "$PYTHON_FOUND" -m venv .venv >.venv/mesh-setup.log 2>&1 || {
        tail -n 5 .venv/mesh-setup.log >&2
        die "the environment could not be made; the lines above are the reason, .venv/mesh-setup.log has them all."
    }
}

install_lock() { # install_lock FILE
    say "installing $(grep -c '^[a-z].*==' "$1") packages from $1, each checked by hash"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
        --requirement "$1" >.venv/mesh-setup.log 2>&1 || {
        tail -n 5 .venv/mesh-setup.log >&2
        die "the packages could not be installed; .venv/mesh-setup.log has the whole story." \
            "They come from the index that pip is configured for (pip config list): is it reachable from here?"
    }
    cp "$1" .venv/
    [ "$1" != requirements-dev.lock ] || cp requirements.lock .venv/ # which it holds as well
}

# Put this checkout on the environment's path, and a `mesh` beside its python. No build, nothing copied.
link_project() {
    .venv/bin/python - "$PWD" <<'LINK'
import os, sys, sysconfig
checkout = sys.argv[1]
with open(os.path.join(sysconfig.get_path("purelib"), "mesh-checkout.pth"), "w") as path:
    path.write(checkout + "\n")
command = os.path.join(checkout, ".venv", "bin", "mesh")
with open(command, "w") as script:  # a shell's exec, since a #! line ends at the first blank of a path
    script.write("#!/bin/sh\n'''exec' \"%s/.venv/bin/python\" \"$0\" \"$@\"\n' '''\n" % checkout)
    script.write("import sys\n\nfrom sidecar.cli import main\n\nsys.exit(main())\n")
os.chmod(command, 0o755)
LINK
    place >.venv/mesh-place
}

fresh() { cmp -s "$1" ".venv/$1"; }

main() {
    case ${1:-run} in
    run) locks="requirements.lock" ;;
    dev) locks="requirements-dev.lock requirements.lock" ;;
    *) die "usage: scripts/setup.sh [run|dev]" ;;
    esac
    started=$(date +%s)
    changed=""
    standing || {
        make_environment
        changed=yes
    }
    for lock in $locks; do
        fresh "$lock" || {
            install_lock "$lock"
            changed=yes
        }
    done
    placed || {
        link_project
        changed=yes
    }
    [ -z "$changed" ] || say "ready after $(($(date +%s) - started)) s"
}

main "$@"
