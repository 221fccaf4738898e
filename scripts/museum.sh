#!/usr/bin/env bash
# The museum of bugs: puts every planted bug of tests/museum into a copy of the sources, one at a time, and runs the
# ordinary tests that must find it.
#
#   scripts/museum.sh [PART OF A NAME…]    all of them, or those whose name contains a part
#   scripts/museum.sh --apply              only looks whether every patch still applies
#
# Each patch says in its first lines which tests must fail (`Caught-by:`, see tests/museum/README.md); the first that
# fails is enough. The same tests must pass without any patch. A patch that does not apply, does not compile or makes no
# test fail is an error. The last line is JSON: {"planted":…,"caught":…}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh
need_build_tools

# Sweeps look at fewer states here than in scripts/test.sh: what is planted shows early.
export FOREBAY_SWEEP_STATES=${FOREBAY_SWEEP_STATES:-20000}
# A test that runs longer hangs, and a test that hangs has failed.
limit=${FOREBAY_MUSEUM_LIMIT:-600}
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/museum
tree=$work/tree
logs=$work/logs
rm -rf "$tree" "$logs"
mkdir -p "$tree" "$logs" "$work/log" "$work/whole"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --null -T - -cf - | tar -xf - -C "$tree"
scripts/log-crate.sh "$tree" "$work/log"

wanted() {
    [ $# -gt 1 ] || return 0
    local name=$1 part
    shift
    for part in "$@"; do if [[ $name == *"$part"* ]]; then return 0; fi; done
    return 1
}

header() { sed -n "s/^$2: *//p" "$1" | head -n 1; }

apply() { patch -p1 --directory "$tree" --forward --no-backup-if-mismatch --fuzz=2 --quiet "$@"; }

# Puts the sources of the patch back. Their time is now, so that they are built again.
restore() {
    sed -n 's|^+++ b/||p' "$1" | while read -r file; do cp "$file" "$tree/$file"; done
    find "$tree" \( -name '*.rej' -o -name '*.orig' \) -delete
}

# The target of a test in the words of Caught-by: `TEST FILTER`, `lib FILTER`, with a leading `whole` for the whole crate,
# and `librdkafka` behind that if librdkafka is to fetch.
cargo_test() {
    local mode=$1 log=$2
    shift 2
    local crate=$work/log target=$work/log/target
    local limited=(timeout --kill-after=10 "$limit")
    if [ "$1" = whole ]; then
        shift
        crate=$tree target=${FOREBAY_MUSEUM_TARGET:-$work/whole}
    fi
    if [ "$1" = librdkafka ]; then
        shift
        limited=(env FOREBAY_KAFKA__FETCHER=librdkafka "${limited[@]}")
    fi
    local what=(--lib)
    if [ "$1" != lib ]; then what=(--test "$1"); fi
    shift
    local arguments=(test --release --quiet --manifest-path "$crate/Cargo.toml" --target-dir "$target" "${what[@]}")
    if [ "$mode" = build ]; then
        cargo "${arguments[@]}" --no-run
    else
        "${limited[@]}" cargo "${arguments[@]}" -- "$@"
    fi >"$log" 2>&1
}

split() { tr ',' '\n' <<<"$1" | sed 's/^ *//; s/ *$//' | grep -v '^$'; }

patches=()
for patch in tests/museum/*.patch; do
    if wanted "$(basename "$patch" .patch)" "$@" || [ "${1:-}" = --apply ]; then patches+=("$patch"); fi
done

planted=0 caught=0 wrong=0
complain() {
    printf 'WRONG   %-48s %s\n' "$1" "$2"
    wrong=$((wrong + 1))
}

if [ "${1:-}" = --apply ]; then
    for patch in "${patches[@]}"; do
        planted=$((planted + 1))
        apply <"$patch" >/dev/null 2>&1 || complain "$(basename "$patch" .patch)" "does not apply"
        restore "$patch"
    done
    printf '{"planted":%d,"applying":%d}\n' "$planted" $((planted - wrong))
    [ "$wrong" = 0 ]
    exit
fi

# Without a patch everything passes.
baseline=$(for patch in "${patches[@]}"; do split "$(header "$patch" Caught-by)"; done | sort -u)
while read -r test; do
    read -ra words <<<"$test"
    log=$logs/baseline.${test//[^a-z_]/-}
    if ! cargo_test run "$log" "${words[@]}"; then
        echo "without any patch \`$test\` fails; see $log" >&2
        exit 1
    fi
done <<<"$baseline"

for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    log=$logs/$name
    planted=$((planted + 1))
    started=$SECONDS
    if [ -z "$(header "$patch" Bug)" ] || [ -z "$(header "$patch" Origin)" ]; then
        complain "$name" "says neither what it is nor where it comes from"
    elif ! apply <"$patch" >"$log" 2>&1; then
        complain "$name" "does not apply; see $log"
    else
        by='' broken=''
        while read -r test; do
            read -ra words <<<"$test"
            if ! cargo_test build "$log" "${words[@]}"; then
                broken="does not compile for \`$test\`; see $log"
                break
            fi
            if ! cargo_test run "$log" "${words[@]}"; then
                by=$test
                break
            fi
        done <<<"$(split "$(header "$patch" Caught-by)")"
        if [ -n "$by" ]; then
            caught=$((caught + 1))
            first=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^    \([a-z_:0-9]*\)$/\1/p' "$log" | head -n 1)
            printf 'caught  %-48s by %s: %s (%ds)\n' "$name" "$by" "${first:-it hung}" $((SECONDS - started))
        else
            complain "$name" "${broken:-is caught by none of: $(header "$patch" Caught-by)}"
        fi
    fi
    restore "$patch"
done

printf '{"planted":%d,"caught":%d}\n' "$planted" "$caught"
[ "$wrong" = 0 ] && [ "$planted" = "$caught" ]
