#!/usr/bin/env bash
# Damages BLOCKS random blocks of logs on a real Kafka, half of them under the running process: each is fetched again,
# compared byte for byte, and everything is delivered once. Last line: one JSON object, damaged, repaired, lost, doubled,
# seconds. Exit 101 when a block is not repaired or a record lost or doubled.
#
#   scripts/heal-test.sh [BLOCKS]        (1000)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
export FOREBAY_DAMAGED=${1:-1000}
soak heal
