#!/usr/bin/env bash
# Everything that must hold: format, lints, all tests, and the tests on a real Apache Kafka.
#
#   scripts/test.sh [ARGUMENTS OF CARGO TEST]
#
# The real-Kafka tests need Java and Maven. Without them they are skipped, which is said at the end; with CI=true that
# is a failure. One profile (release) for everything, so that dependencies are built once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_build_tools

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

skipped=
if ! why=$(scripts/kafka/classpath.sh 2>&1 >/dev/null); then
    skipped=$why
    if [ "${CI:-}" = true ]; then
        echo "$why" >&2
        echo "with CI=true this is a failure" >&2
        exit 1
    fi
fi

# Tests that a machine does not allow add a line here.
list=${CARGO_TARGET_DIR:-target}/skipped
rm -f "$list"

step cargo fmt --all --check
step cargo clippy --release --all-targets --locked -- -D warnings
# A planted bug whose patch does not apply any more guards nothing.
step scripts/museum.sh --apply
step cargo test --release --all --locked "$@"
if [ -z "$skipped" ] && [ $# = 0 ]; then
    # What can't be fetched by Forebay itself is left to librdkafka: everything must hold there too.
    step env FOREBAY_KAFKA__FETCHER=librdkafka cargo test --release --locked --test real_kafka -- --skip fetch::
fi
if [ -s "$list" ]; then
    printf '\nSKIPPED on this machine:\n'
    sort -u "$list"
fi
if [ -n "$skipped" ]; then
    printf '\nall passed, but the real-Kafka tests were SKIPPED: %s\n' "$skipped"
else
    printf '\nall passed, real Kafka included\n'
fi
