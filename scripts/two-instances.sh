#!/usr/bin/env bash
# Two instances in one group, each with its own log and output, each stopped, killed -9 or frozen past its session and
# restarted, ROUNDS times under live load; then both drained. One JSON line over both outputs together.
#
#   scripts/two-instances.sh [ROUNDS] [RECORDS_PER_SECOND]        (20, 10000)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_ROUNDS=${1:-20} FOREBAY_RATE=${2:-10000}
soak two-instances
