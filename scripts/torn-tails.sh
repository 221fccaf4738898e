#!/usr/bin/env bash
# Cuts the power in the middle of the last group of N logs, garbles what was on its way, and opens them: none may be
# refused. The last line is JSON: tails, refused, seconds. Exit code 1 if one was refused.
#
#   scripts/torn-tails.sh [N]        (1000000)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_TAILS=${1:-1000000}
log_test torn_tails no_torn_tail_is_refused
