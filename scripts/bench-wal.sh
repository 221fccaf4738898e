#!/usr/bin/env bash
# Durable appends of Forebay's log side by side with raft-engine, okaywal and fjall, and with the ceiling: a bare loop of
# pwritev and fdatasync of the same groups into blocks that are written. Every append waits for its sync; the runs take
# turns; medians. Builds a crate of its own, bench-wal/.
#
#   scripts/bench-wal.sh [DIR [ROUNDS [SECONDS]]]     default: ./.forebay-bench-wal, 5 rounds of 2 seconds
#   scripts/bench-wal.sh recovery [DIR [GIB [GIB]]]   a log of 2 GiB verified from the page cache, one of 10 GiB opened
#
# DIR must be on the disk that is meant. The last line on standard output is JSON: MB/s by shape and log.
#
# The ceiling wants a quiet machine: what waits for a sync must run as soon as it returns. Where it is allowed, everything
# measured runs ahead of other work (SCHED_FIFO).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_build_tools

what=append
if [ "${1:-}" = recovery ]; then
    what=recovery
    shift
fi
dir=${1:-$PWD/.forebay-bench-wal}
mkdir -p "$dir"
cargo build --release --locked --manifest-path bench-wal/Cargo.toml >&2
ahead=()
if chrt -f 1 true 2>/dev/null; then ahead=(chrt -f 1); fi
"${ahead[@]}" "${CARGO_TARGET_DIR:-bench-wal/target}/release/bench-wal" "$what" "$dir" "${@:2}"
if [ $# -eq 0 ]; then rmdir "$dir"; fi
