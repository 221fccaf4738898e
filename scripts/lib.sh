# What the scripts share. Sourced, not run.

# Names each missing build tool with the command that installs it.
need_build_tools() {
    local missing=()
    command -v cargo >/dev/null || {
        echo "Rust is missing: see https://rustup.rs" >&2
        exit 69
    }
    command -v cc >/dev/null || missing+=(gcc)
    command -v c++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    command -v perl >/dev/null || missing+=(perl)
    command -v python3 >/dev/null || missing+=(python3)
    if [ ${#missing[@]} -gt 0 ]; then
        echo "missing build tools: apt-get install -y ${missing[*]}" >&2
        exit 69
    fi
}

# soak NAME: runs one test of tests/soak and prints its JSON lines; all it says goes to target/soak/NAME.log.
soak() {
    local name=$1 log
    need_build_tools
    scripts/kafka/classpath.sh >/dev/null
    log=${CARGO_TARGET_DIR:-target}/soak/$name.log
    mkdir -p "$(dirname "$log")"
    cargo build --release --locked --bins --examples >&2
    local code=0
    FOREBAY_SOAK=$name cargo test --release --locked --test soak -- \
        --exact --nocapture --test-threads=1 "${name//-/_}" "stall::$name" "heal::$name" "bench::$name" \
        > >(tee "$log" | sed -un 's/^[^{]*\({.*}\)$/\1/p') 2> >(tee "$log.err" >&2) || code=$?
    wait
    if [ "$code" -ne 0 ]; then echo "failed; see $log and $log.err" >&2; fi
    return "$code"
}

# log_test FILE NAME: runs one test and prints its JSON line last; exit code 1 if it fails.
log_test() {
    need_build_tools
    local out code=0
    out=$(mktemp)
    cargo test --release --locked --test "$1" -- --exact --nocapture "$2" >"$out" || code=1
    if [ "$code" -ne 0 ]; then cat "$out" >&2; fi
    sed -n 's/^[^{]*\({".*}\)$/\1/p' "$out" | tail -n 1
    rm -f "$out"
    return "$code"
}
