#!/usr/bin/env bash
# Real clients against a gateway that the suites start themselves, on free ports with a Redis of their own: in front of
# simulated nodes, or, with CONFORMANCE_TARGET=real, of the real model (scripts/test-real.sh sets what that needs).
# Installs the clients from PyPI into .venv-conformance and .venv-litellm, once; needs TOLLGATE_BINARY or a debug build,
# and Python 3.11 or newer. Arguments go to pytest: `make test-conformance ARGS='-k stream'`.
set -euo pipefail
cd "$(dirname "$0")/.."

suites=Tests/ConformanceTests
export TOLLGATE_BINARY=${TOLLGATE_BINARY:-$PWD/.build/debug/tollgate}
export CONFORMANCE_TARGET=${CONFORMANCE_TARGET:-simulated} PYTHONDONTWRITEBYTECODE=1

[ -x "$TOLLGATE_BINARY" ] || { echo "$TOLLGATE_BINARY is not there: run 'swift build' first" >&2; exit 1; }
packages=(redis-server curl openssl nghttp2-client)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
scripts/install-packages.sh "${packages[@]}"

# usage: install VENV REQUIREMENTS. The stamp is written last: an installation that broke off is made anew.
install() {
    cmp -s "$2" "$1/installed.txt" && return
    echo "Installing $(basename "$2") into $1" >&2
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2" >&2
    cp "$2" "$1/installed.txt"
}
install .venv-litellm "$suites/requirements-litellm.txt"
install .venv-conformance "$suites/requirements.txt"

# Its suite first: the closing line of the other, which is the larger by far, shall be the last.
# 5: none of its tests was asked for.
.venv-litellm/bin/python "$suites/run.py" --suite test_litellm.py "$@" || {
    code=$?
    [ "$code" -eq 5 ] || exit "$code"
}
exec .venv-conformance/bin/python "$suites/run.py" "$@"
