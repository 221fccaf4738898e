#!/usr/bin/env bash
# Faults that are real: every system call of log, files and commits fails or kills in turn, before it is made and after;
# writes are cut short by limits and full disks; disks fill up or become read-only; and a run against an embedded Kafka is
# checked call by call. Needs strace, ptrace and prlimit; as root also mounts small disks. What the machine does not allow
# is skipped and named.
#
# The last line is JSON: {"sites":…,"injections":…,"lost":…,"doubled":…,"skipped":[…]}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_build_tools

out=$(mktemp)
trap 'rm -f "$out"' EXIT
code=0
FOREBAY_REAL_FAULTS=all cargo test --release --locked --test real_faults -- --nocapture --test-threads=1 |
    tee "$out" >&2 || code=$?

# Several tests inject; each has a line.
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$out" | awk '{ sum += $1 } END { print sum + 0 }'; }
skipped=$(sed -n 's/^.*{"skipped":"\([^"]*\)".*$/"\1"/p' "$out" | paste -sd, -)
sites=$(number sites) injections=$(number injections) lost=$(number lost) doubled=$(number doubled)
printf '{"sites":%d,"injections":%d,"lost":%d,"doubled":%d,"skipped":[%s]}\n' \
    "${sites:-0}" "${injections:-0}" "${lost:-0}" "${doubled:-0}" "$skipped"
exit "$code"
