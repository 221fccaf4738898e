#!/usr/bin/env bash
# kill -9 in direct mode on a real Kafka under live load, at random and between the sink's write and its receipt, in
# jsonl and in raw; one JSON line each: produced, delivered, lost, doubled, kills. Exit 101 when anything is lost or
# doubled.
#
#   scripts/kill-direct-test.sh [KILLS EACH] [RECORDS_PER_SECOND]        (50, 20000)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_KILLS=${1:-50} FOREBAY_RATE=${2:-20000}
soak kill-direct
