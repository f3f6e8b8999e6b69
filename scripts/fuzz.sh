#!/usr/bin/env bash
# Fuzzes each target with libFuzzer for so many seconds: fuzz.sh SECONDS [TARGET...]. A finding ends the run with status 1;
# the input that shows it is left in .build-fuzz/findings, for the corpus once it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(json stream response front vocabulary text)
findings=.build-fuzz/findings
mkdir -p "$findings"

# Neither debug information nor an index: half of the build's time.
TOLLGATE_FUZZ=1 ${SWIFT:-swift} build --scratch-path .build-fuzz --product Fuzz \
    -debug-info-format none --disable-index-store ${FUZZ_BUILD_ARGS:-}
fuzz=.build-fuzz/debug/Fuzz
mkdir -p .build-fuzz/work/front
"$fuzz" seeds .build-fuzz/work/front

run() {
    local target=$1 work=.build-fuzz/work/$1 bytes=2048
    # The smallest vocabulary that is whole names all the bytes.
    [ "$target" != vocabulary ] || bytes=16384
    mkdir -p "$work"
    # New inputs go to the first directory, which is no part of the repository.
    "$fuzz" "$target" "$work" "Tests/Fuzz/Corpus/$target" \
        -max_total_time="$seconds" -max_len="$bytes" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -dict="Tests/Fuzz/Dictionaries/$target.dict" -artifact_prefix="$findings/$target-" \
        >"$findings/$target.log" 2>&1
}

status=0
pids=()
# Two at a time, as CI has two cores.
wait_for() {
    local target=$1 pid=$2
    if wait "$pid"; then
        echo "fuzz $target: $(grep -m1 executed_units "$findings/$target.log" | grep -oE '[0-9]+$') inputs, no finding"
    else
        status=1
        grep -a -E '^finding:|ERROR|Test unit written|Fatal error' "$findings/$target.log" | head -20 || true
        echo "fuzz $target: a finding; see $findings/$target.log"
    fi
}
for ((at = 0; at < ${#targets[@]}; at += 2)); do
    pair=("${targets[@]:at:2}")
    pids=()
    for target in "${pair[@]}"; do
        run "$target" &
        pids+=($!)
    done
    for index in "${!pair[@]}"; do wait_for "${pair[index]}" "${pids[index]}"; done
done
exit $status
