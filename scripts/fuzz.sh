#!/usr/bin/env bash
# Runs every fuzz target, one after the other, with its memory bounded; needs nightly Rust and cargo-fuzz.
#
#   scripts/fuzz.sh RUNS|SECONDSs [TARGET…]    e.g. 5000000, or 60s; all targets without names
#
# Without a sanitizer: none of the code that is reached has `unsafe` of its own, and memory is what is bounded here.
# Builds the targets against the part of the crate that needs no Kafka client (scripts/log-crate.sh). What they find is
# kept in fuzz/artifacts, what they learn in fuzz/corpus. The last line is JSON:
# {"targets":…,"executions":…,"crashes":…,"rss_max_mb":…}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_build_tools
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "needs nightly Rust (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz)" >&2
    exit 69
fi
case ${1:?how many runs, or how many seconds: 5000000 or 60s} in
    *s) bound=-max_total_time=${1%s} ;;
    *) bound=-runs=$1 ;;
esac
shift

# The same targets in a package that depends on the smaller crate.
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
mkdir -p "$work/package/fuzz" "$work/log" fuzz/corpus fuzz/artifacts
scripts/log-crate.sh . "$work/log"
# cargo-fuzz wants a package around.
printf '[package]\nname = "around"\nversion = "0.0.0"\nedition = "2024"\n\n[lib]\npath = "lib.rs"\n\n[workspace]\n' \
    >"$work/package/Cargo.toml"
: >"$work/package/lib.rs"
sed "s|path = \"\\.\\.\"|path = \"$work/log\"|" fuzz/Cargo.toml >"$work/package/fuzz/Cargo.toml"
for beside in fuzz_targets decoders.rs lives.rs seeds; do ln -sfn "$PWD/fuzz/$beside" "$work/package/fuzz/$beside"; done
ln -sfn "$PWD/tests" "$work/package/tests"

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)
fi
# build FOLDER [ARGUMENT…]
build() (
    folder=$work/$1
    shift
    cd "$work/package"
    cargo +nightly fuzz build --release --sanitizer none --target-dir "$folder" "$@" >&2
)
build target
# Its bytes are choices and are compared with nothing: to trace comparisons would cost most of its time.
build target-plain --no-trace-compares log_life

executions=0 crashes=0 rss=0
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    seeds=()
    if [ -d "fuzz/seeds/$target" ]; then seeds=("fuzz/seeds/$target"); fi
    log=$work/$target.txt
    from=$work/target longest=0
    # A life has 24 steps of two bytes (fuzz/lives.rs).
    if [ "$target" = log_life ]; then from=$work/target-plain longest=48; fi
    # What a few bytes may unpack to is what one batch may, which is more than is allowed here.
    if [ "$target" = wire_unpack ]; then longest=1024; fi
    binary=$(find "$from" -path "*/release/$target" -type f | head -n 1)
    code=0
    "$binary" "$bound" -max_len=$longest -rss_limit_mb=256 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        "fuzz/corpus/$target" "${seeds[@]}" >"$log" 2>&1 || code=$?
    stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    runs=$(stat number_of_executed_units) mb=$(stat peak_rss_mb) speed=$(stat average_exec_per_sec)
    printf '%-16s %12d executions, %8d/s, %4d MiB%s\n' "$target" "${runs:-0}" "${speed:-0}" "${mb:-0}" \
        "$([ "$code" = 0 ] || echo "  CRASHED: see $log")"
    executions=$((executions + ${runs:-0}))
    rss=$((rss > ${mb:-0} ? rss : ${mb:-0}))
    [ "$code" = 0 ] || crashes=$((crashes + 1))
done
printf '{"targets":%d,"executions":%d,"crashes":%d,"rss_max_mb":%d}\n' "${#targets[@]}" "$executions" "$crashes" "$rss"
[ "$crashes" = 0 ]
