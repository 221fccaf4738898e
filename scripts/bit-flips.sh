#!/usr/bin/env bash
# Flips every bit of a log of 1 MiB from its first header to its end, one at a time; each must be reported, and no wrong
# byte handed out. The last line is JSON: flips, detected, seconds. Exit code 1 if one was missed.
#
#   scripts/bit-flips.sh [N]        (8388608: all; fewer: evenly spread)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_FLIPS=${1:-8388608}
log_test corruption every_flipped_bit_is_reported
