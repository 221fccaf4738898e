#!/usr/bin/env bash
# Crashes the log on simulated machines until N distinct states (a state: what the disk holds when recovery starts) were
# recovered and checked. The last line is JSON: states, violations, seconds. Exit code 1 if a promise was broken; what
# broke it, and how to run just that again, is said above.
#
#   scripts/crash-sweep.sh [N]        (10000000: about half an hour on two cores)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_SWEEP_STATES=${1:-10000000}
log_test crash_sweep every_state_that_a_crash_leaves_recovers
