#!/usr/bin/env bash
# Makes a crate, named forebay too, of everything that needs no Kafka client and no server: the log, the sinks, the
# delivery and the ownership rules, with their tests. It builds in a fraction of the time; the sources stay where they
# are. With a copy of the repository as both, the copy becomes that crate.
#
#   scripts/log-crate.sh REPOSITORY DESTINATION
set -euo pipefail
repository=$(realpath "$1")
destination=$(realpath -m "$2")
mkdir -p "$destination"

# Rooms, and the parts of `kafka` that are pure.
rooms=(clock config dedupe io metrics processor rate record sink wal)
pure=(gap loss start tenure)
wire=(batches)
heavy='anyhow|axum|clap|clap_complete|comfy-table|indicatif|mimalloc|plotters|rdkafka|tokio|tracing-subscriber'
# What the tests of these rooms are called.
tests=(
    crash_sweep corruption torn_tails recovery_table wal_format wal_format_golden wal_log wal_direct wal_order wal_held wal_rules file_sink joint_crash
    fuzz_smoke second_reader delivery ownership_model pid_golden wal_failed_sync wal_quick_open wal_repair wal_queueing wal_reading wal_scanning wal_scrubbing real_faults
)

section() { sed -n "/^\[$1\]/,/^\[/p" "$repository/Cargo.toml" | grep -v '^\[' | grep -v '^$' || true; }

module() {
    local indent=$1 path=$2 name=$3
    if [ -d "$repository/src/$path" ]; then path=$path/mod; fi
    printf '%s#[path = "%s/src/%s.rs"]\n%spub mod %s;\n' "$indent" "$repository" "$path" "$indent" "$name"
}

manifest() {
    printf '[package]\nname = "forebay"\nversion = "0.1.0"\nedition = "2024"\nautotests = false\nautobins = false\nautoexamples = false\nautobenches = false\n\n[lib]\npath = "lib.rs"\n\n[dependencies]\n'
    section dependencies | grep -vE "^($heavy) *="
    printf '\n[dev-dependencies]\n'
    section dev-dependencies
    # Optimized enough to run a sweep, little enough to be built in seconds.
    printf '\n[profile.release]\nopt-level = 1\ndebug = false\ncodegen-units = 64\nincremental = true\n'
    printf '\n[profile.release.package."*"]\nopt-level = 2\n\n[workspace]\n'
    for test in "${tests[@]}"; do
        if [ -f "$repository/tests/$test.rs" ]; then
            printf '\n[[test]]\nname = "%s"\npath = "%s/tests/%s.rs"\n' "$test" "$repository" "$test"
        else
            printf '\n[[test]]\nname = "%s"\npath = "%s/tests/%s/main.rs"\n' "$test" "$repository" "$test"
        fi
    done
}
library() {
    printf '#![allow(missing_docs, dead_code)]\n'
    for room in "${rooms[@]}"; do module '' "$room" "$room"; done
    printf 'pub mod kafka {\n'
    for part in "${pure[@]}"; do module '    ' "kafka/$part" "$part"; done
    printf '    pub mod wire {\n'
    for part in "${wire[@]}"; do module '        ' "kafka/wire/$part" "$part"; done
    printf '    }\n'
    printf '}\n'
}
made=$(manifest)
if [ "$repository" = "$destination" ]; then
    # Paths within the crate; those in a module written out begin in its folder.
    rm -f "$destination/src/main.rs"
    sed "s|\"$repository/|\"|; s|\"lib.rs\"|\"src/lib.rs\"|" <<<"$made" >"$destination/Cargo.toml"
    library | sed "s|\"$repository/src/kafka/wire/|\"|; s|\"$repository/src/kafka/|\"|; s|\"$repository/src/|\"|" \
        >"$destination/src/lib.rs"
else
    echo "$made" >"$destination/Cargo.toml"
    library >"$destination/lib.rs"
    # What tests read besides.
    for beside in src tests fuzz scripts wal_format.md; do ln -sfn "$repository/$beside" "$destination/$beside"; done
    cp "$repository/Cargo.lock" "$destination/Cargo.lock"
fi
