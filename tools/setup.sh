#!/bin/sh
# Fills .venv with what a lock names, and Celeriac itself. make calls it before whatever needs Python:
#   tools/setup.sh run    requirements.txt
#   tools/setup.sh dev    requirements-dev.txt, which holds all of the former
# When neither the lock nor pyproject.toml has changed since the last time, it does nothing.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd -P)

say() { echo "$*" >&2; }
stop() { say "$*"; exit 1; }

fingerprint() { { echo "$here"; cat "$1" pyproject.toml; } | cksum; }

case ${1:-} in
    run) lock=requirements.txt ;;
    dev) lock=requirements-dev.txt ;;
    *) stop "Usage: tools/setup.sh run|dev" ;;
esac
ready=.venv/.ready-$1
if [ -x .venv/bin/python ] && [ "$(cat "$ready" 2>/dev/null)" = "$(fingerprint "$lock")" ]; then exit 0; fi

# Prints the first Python that is new enough; PYTHON=… names another.
find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$python"; return; fi
    done
    found=$("${PYTHON:-python3}" --version 2>/dev/null) || found="no Python"
    stop "Celeriac needs Python 3.11 or newer and found $found: install a newer one, or name it with PYTHON=/path/to/python3."
}

has_venv() { "$python" -c 'import venv, ensurepip' 2>/dev/null; }

# Debian ships venv and ensurepip in a package of their own.
add_venv() {
    package=$(basename "$python")-venv
    command -v apt-get >/dev/null || stop "This Python lacks venv or ensurepip: install your system's package for them, then try again."
    install="apt-get install -y --no-install-recommends $package"
    [ "$(id -u)" = 0 ] || stop "Python's venv module is not installed here; type: sudo $install"
    say "Installing $package"
    export DEBIAN_FRONTEND=noninteractive
    $install >/dev/null 2>&1 || { apt-get update -qq && $install >/dev/null; } || stop "That failed; type: $install"
    has_venv || stop "$package is installed, but $python still has no venv: name Debian's own with PYTHON=/usr/bin/python3."
}

# A .venv made elsewhere, or for a Python that is gone, is made anew.
is_sound() { grep -qsF "$here/.venv" .venv/bin/activate && .venv/bin/python -c 'import pip' 2>/dev/null; }

if is_sound; then
    say "Updating .venv from $lock"
    rm -f .venv/.ready-*
else
    python=$(find_python)
    has_venv || add_venv
    say "Setting up .venv with $("$python" --version) from $lock (a minute or two)"
    "$python" -m venv --clear .venv
fi

# Locks are complete and hashed, so nothing is resolved; the build backend is in them, so nothing else is fetched.
pip() { .venv/bin/python -m pip -qq --disable-pip-version-check --no-input "$@"; }
pip install --no-deps --require-hashes -r "$lock" || stop "Could not install $lock; the reason is above. Type the same command to try again."
pip install --no-deps --no-index --no-build-isolation -e . || stop "Could not install Celeriac itself into .venv; the reason is above."

fingerprint "$lock" >"$ready"
if [ "$1" = dev ]; then fingerprint requirements.txt >.venv/.ready-run; fi
