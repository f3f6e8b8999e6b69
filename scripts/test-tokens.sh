#!/usr/bin/env bash
# Ids and counts of ours held against the libraries that define them: differential fuzzing, then equality on a corpus,
# and in the full round (`make test-tokens`) hostile texts. The small round, which is part of `make test`, compares a
# sample of each kind of text, by every vocabulary. Installs the libraries from PyPI into .venv-tokens, once, and keeps
# vocabularies and corpora there; needs a build of tollgate and Python 3.11 or newer.
# usage: test-tokens.sh [small|full] [ARGUMENTS OF equality.py]   TOKENS_FUZZ_SECONDS=60 test-tokens.sh full
#        test-tokens.sh speed [small|full] [ARGUMENTS OF speed.py]
# Exits 75 where packages cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=Tests/Tokens
venv=.venv-tokens
size=small part=equality
if [ "${1:-}" = speed ]; then part=speed && shift; fi
case ${1:-} in small | full) size=$1 && shift ;; esac
binary=${TOLLGATE_BINARY:-$PWD/.build/release/tollgate}
export PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false

[ -x "$binary" ] || { echo "$binary is not there: run 'make build' first" >&2; exit 1; }
python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/install-packages.sh python3-venv

# The stamp is written last: an installation that broke off is made anew.
if ! cmp -s "$suite/requirements.txt" "$venv/installed.txt"; then
    echo "Installing the reference libraries into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$suite/requirements.txt" >&2 || exit 75
    cp "$suite/requirements.txt" "$venv/installed.txt"
fi

python=$venv/bin/python
"$python" "$suite/vocabularies.py" "$venv/vocabularies" --packages "$venv/packages"
"$python" "$suite/corpus.py" "$venv/corpus-$size" --size "$size" --packages "$venv/packages" >/dev/null
common=(--binary "$binary" --vocabularies "$venv/vocabularies")
[ "$part" != speed ] || exec "$python" "$suite/speed.py" "${common[@]}" --corpus "$venv/corpus-$size" "$@"
seconds=60 fuzzed=() sample=()
if [ "$size" = small ]; then
    # Of files that a debug build reads for long, and of those that differ in little, only the equality.
    fuzzed=({cl100k_base,o200k_base,p50k_base,qwen}.tiktoken {tekken_240911,gpt2,llama3,qwen2,mistral-v3-prepend}.json)
    seconds=10 fuzzed=(--only "${fuzzed[@]}") sample=(--bytes 500000)
fi
"$python" "$suite/fuzz.py" "${common[@]}" --corpus "$venv/corpus-$size" "${fuzzed[@]}" \
    --seconds "${TOKENS_FUZZ_SECONDS:-$seconds}"
[ "$size" = small ] || "$python" "$suite/hostile.py" "${common[@]}" --size "$size"
exec "$python" "$suite/equality.py" "${common[@]}" --corpus "$venv/corpus-$size" --answers "$venv/answers" \
    "${sample[@]}" "$@"
