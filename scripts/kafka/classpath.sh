#!/usr/bin/env bash
# Prints the Java class path of the Kafka that pom.xml names, and keeps it in target/kafka/.
# Exit 69 names what is missing and how to install it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CARGO_TARGET_DIR:-$here/../../target}/kafka
install='apt-get install -y openjdk-17-jre-headless maven'

missing=()
command -v java >/dev/null || missing+=(java)
list=$cache/classpath-$(cksum <"$here/pom.xml" | cut -d' ' -f1)
if [ ! -s "$list" ]; then command -v mvn >/dev/null || missing+=(mvn); fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "real-Kafka tests need ${missing[*]}: $install" >&2
    exit 69
fi

# A list whose jars have gone is made again.
if [ ! -s "$list" ] || ! tr ':' '\n' <"$list" | while read -r jar; do [ -e "$jar" ] || exit 1; done; then
    mkdir -p "$cache"
    if ! mvn -B -q -f "$here/pom.xml" dependency:build-classpath \
        -Dmdep.outputFile="$list.$$" >"$cache/maven.log" 2>&1; then
        echo "Maven could not fetch Kafka; its last lines (all in $cache/maven.log):" >&2
        tail -n 5 "$cache/maven.log" >&2
        exit 69
    fi
    mv "$list.$$" "$list"
fi
cat "$list"
