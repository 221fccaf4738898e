#!/usr/bin/env bash
# Standard output into a pipe that nobody reads, at full input: memory and log stay bounded (without a quota the log takes
# all that comes), the group does not rebalance, and everything arrives once the pipe is read. One JSON line.
#
#   scripts/stall-test.sh [SECONDS] [RECORDS_PER_SECOND] [QUOTA_MIB]        (120, 20000, 512; 0 for none; 1 KiB each)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_STALL_SECONDS=${1:-120} FOREBAY_RATE=${2:-20000} FOREBAY_QUOTA_MIB=${3:-512}
soak stall
