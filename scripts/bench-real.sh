#!/usr/bin/env bash
# forebay run (raw files, fsync, fence; the same in direct mode; without an output; as JSON lines) next to
# examples/consume on one real Kafka: 8 M records of 100 B and 1.5 M of 1 KiB in 4 partitions, turn by turn, and what the
# disk can write in the same rounds; one JSON line each with medians and ratios.
#
#   scripts/bench-real.sh [RUNS] [PERCENT_OF_THE_RECORDS]        (5, 100)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_RUNS=${1:-5} FOREBAY_PERCENT=${2:-100}
soak bench
