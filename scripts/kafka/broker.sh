#!/usr/bin/env bash
# Runs one Kafka node (KRaft, broker and controller in one) on 127.0.0.1 for tests.
#
#   scripts/kafka/broker.sh DIR PORT CONTROLLER_PORT [NODE]
#
# NODE, from 2 on, is a further broker of the cluster whose first node has its controller at CONTROLLER_PORT.
# Data and log go to DIR. The node ends with SIGTERM, or when standard input closes: whoever started it can die in any
# way and leaves no broker behind. FOREBAY_REMOVE=1 removes DIR then.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 3 ] || [ $# -gt 4 ]; then
    sed -n '2,8p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
dir=$1 port=$2 controller=$3 node=${4:-1}
roles=broker listeners=PLAINTEXT://127.0.0.1:$port
if [ "$node" = 1 ]; then roles=broker,controller listeners=$listeners,CONTROLLER://127.0.0.1:$controller; fi
classpath=$("$here/classpath.sh")
mkdir -p "$dir"

cat >"$dir/server.properties" <<PROPERTIES
process.roles=$roles
node.id=$node
controller.quorum.voters=1@127.0.0.1:$controller
listeners=$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=100
group.min.session.timeout.ms=1000
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=10485760
log.segment.delete.delay.ms=500
PROPERTIES

run=(java -Xms256m -Xmx"${FOREBAY_BROKER_HEAP:-512m}" -XX:+UseG1GC
    -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$classpath")
"${run[@]}" kafka.tools.StorageTool format --config "$dir/server.properties" \
    --cluster-id 4L6g3nShT-eMCtK--X86sw --ignore-formatted >"$dir/format.log" 2>&1 \
    || { tail -n 20 "$dir/format.log" >&2; exit 1; }

"${run[@]}" kafka.Kafka "$dir/server.properties" >"$dir/broker.log" 2>&1 </dev/null &
broker=$!
end() {
    trap - TERM INT HUP EXIT
    kill -KILL "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
    if [ "${FOREBAY_REMOVE:-}" = 1 ]; then rm -rf "$dir"; fi
}
trap 'end; exit 0' TERM INT HUP
trap end EXIT
echo "$broker"

# Standard input is the leash: it closes when the starter is gone. A broker that dies by itself is noticed each second.
while kill -0 "$broker" 2>/dev/null; do
    code=0
    read -r -t 1 _ || code=$?
    if [ "$code" -gt 0 ] && [ "$code" -le 128 ]; then exit 0; fi
done
echo "the broker ended by itself; see $dir/broker.log" >&2
exit 1
