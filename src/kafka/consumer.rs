//! A group member: rebalances as events, batches from one queue, commits with results, pause and resume by seek.
//!
//! Promises: rebalance events come in order and are handled by the caller, on the thread that polls, before the group
//! goes on; a pause is undone only together with a seek to the caller's own next offset (librdkafka's position counts
//! end-of-partition events as consumed). Never: it does not commit by itself and stores no offsets.
//!
//! What is assigned is fetched by [`Wire`] where that can do it; librdkafka's own fetching is then paused.

use super::events::{Context, Event};
use super::ffi::commit::{CommitQueue, Committed, Offer, Outcome, committed};
use super::ffi::fetch::{self, Batch, FetchQueue, OwnQueue};
use super::ffi::group::{self, Membership};
use super::ffi::topics;
use super::wire::Wire;
use crate::record::TopicId;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Several heartbeats must fit into a session, and none need be further apart than librdkafka's own default.
const HEARTBEAT_MAX: Duration = Duration::from_secs(3);

/// How the ids of librdkafka's mock clusters begin.
const MOCK_CLUSTER: &str = "mockCluster";

/// A topic's name and a partition number.
pub type Named = (String, i32);

/// Where to fetch from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub named: Named,
    /// The offset.
    pub offset: i64,
    /// Leader epoch of what was read last before the offset; the leader is asked whether it had that much in it. -1 when
    /// unknown: it is not asked.
    pub epoch: i32,
}

/// How to reach Kafka and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port,…`.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// `group.instance.id` for static membership.
    pub instance_id: Option<String>,
    /// After how long without a heartbeat the group gives the member up.
    pub session_timeout: Duration,
    /// Bytes librdkafka may hold for one partition before it stops fetching.
    pub queue_bytes: usize,
    /// Bytes that may wait of what is fetched without librdkafka, all partitions together; `None`: librdkafka fetches.
    pub wire_bytes: Option<usize>,
    /// Further librdkafka settings, applied first.
    pub properties: BTreeMap<String, String>,
}

/// The own queue of a partition. Kept until the partition is unassigned.
struct Own {
    queue: OwnQueue<Context>,
    /// It is in use; else everything goes on to the common queue.
    apart: bool,
}

/// A member of a consumer group. Not shared: the thread that polls it owns it.
pub struct Member {
    wire: Option<Wire>,
    /// The setting that only librdkafka understands.
    only_client: Option<String>,
    // Dropped in this order: librdkafka wants its queues gone before the client.
    own: HashMap<Named, Own>,
    fetch: FetchQueue<Context>,
    commits: CommitQueue<Context>,
    base: Arc<BaseConsumer<Context>>,
}

impl Member {
    /// Makes a client; connects in the background.
    pub fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let context = Context::default();
        let base: BaseConsumer<Context> = client_config(settings).create_with_context(context)?;
        let base = Arc::new(base);
        let wire = settings.wire_bytes.map(|bytes| Wire::new(&settings.brokers, &settings.properties, bytes));
        let (wire, only_client) = wire.map_or((None, None), |wire| match wire {
            Ok(wire) => (Some(wire), None),
            Err(setting) => (None, Some(setting)),
        });
        Ok(Self {
            wire,
            only_client,
            own: HashMap::new(),
            fetch: FetchQueue::new(&base),
            commits: CommitQueue::new(&base),
            base,
        })
    }

    /// Joins the group for these topics (`^…` is a regular expression).
    pub fn subscribe(&self, topics: &[String]) -> Result<(), KafkaError> {
        if let Some(setting) = &self.only_client {
            tracing::info!("librdkafka fetches, because of {setting}");
        }
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        self.base.subscribe(&topics)
    }

    /// Serves the client's events; never blocks. Call it often: it keeps the membership alive.
    pub fn poll(&self) -> Option<Event> {
        match self.base.poll(Duration::ZERO) {
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                let text = self.base.client().fatal_error().map_or_else(|| code.to_string(), |(_, text)| text);
                return Some(Event::Error { code: Some(code), fatal: true, text });
            }
            Some(Err(error)) => {
                let event = Event::Error { code: error.rdkafka_error_code(), fatal: false, text: error.to_string() };
                self.base.context().push(event);
            }
            // Every partition is forwarded before it is assigned, so no record can arrive here; one that does would be
            // missing from its block.
            Some(Ok(message)) => {
                use rdkafka::Message;
                let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                let text = format!("record {topic}/{partition}@{offset} came past the fetch queue");
                return Some(Event::Error { code: None, fatal: true, text });
            }
            None => {}
        }
        self.base.context().pop()
    }

    /// What fetches instead of librdkafka, if anything does.
    pub fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// From now on librdkafka fetches, these partitions from these positions.
    pub fn leave_to_client(&mut self, starts: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        self.wire = None;
        for Position { named: (topic, partition), .. } in starts {
            self.fetch.forward(topic, *partition);
        }
        if starts.is_empty() { Ok(()) } else { self.resume_at(starts, timeout) }
    }

    /// Takes what was fetched; blocks up to `timeout` for the first message.
    pub fn fetch(&self, batch: &mut Batch, timeout: Duration) {
        self.fetch.consume(batch, timeout);
    }

    /// From now on the partition has a queue of its own, until [`Member::fetch_together`]. True if it had none: what was
    /// fetched before, and a little of what comes, still arrives in the common one.
    pub fn fetch_apart(&mut self, partition: &Named) -> bool {
        if self.own.get(partition).is_some_and(|own| own.apart) {
            return false;
        }
        self.split(partition)
    }

    fn split(&mut self, partition: &Named) -> bool {
        let fresh = || Own { queue: self.fetch.own(), apart: false };
        let own = self.own.entry(partition.clone()).or_insert_with(fresh);
        own.apart = self.fetch.split(&partition.0, partition.1, &own.queue);
        own.apart
    }

    /// Takes at most `most` messages of a partition that has a queue of its own; does not block.
    pub fn fetch_own(&self, partition: &Named, most: usize, batch: &mut Batch) {
        batch.clear();
        if let Some(own) = self.own.get(partition).filter(|own| own.apart) {
            own.queue.consume(batch, most);
        }
    }

    /// All partitions arrive in one queue again.
    pub fn fetch_together(&mut self) {
        for ((topic, partition), own) in self.own.iter_mut().filter(|(_, own)| own.apart) {
            own.apart = !self.fetch.rejoin(topic, *partition, &own.queue);
        }
    }

    /// Answers [`Event::Assigned`] for partitions that are to be fetched, each from an offset, into one queue or each into
    /// its own. Also undoes a pause that survived an earlier assignment.
    pub fn assign(&mut self, starts: &[(Named, i64)], apart: bool) -> Result<(), KafkaError> {
        self.direct(starts, apart);
        let list = offsets(starts)?;
        if let Some(wire) = &mut self.wire {
            // Before and after: a pause survives an assignment, and only a partition that is known can be paused.
            self.base.pause(&list)?;
            self.base.incremental_assign(&list)?;
            self.base.pause(&list)?;
            let position =
                |(named, offset): &(Named, i64)| Position { named: named.clone(), offset: *offset, epoch: -1 };
            wire.position(starts.iter().map(position));
            return Ok(());
        }
        self.base.incremental_assign(&list)?;
        // An unassignment just before may have been under way still, and have undone that: now it is over.
        self.direct(starts, apart);
        self.base.resume(&list)
    }

    /// Says where what is fetched of these partitions goes.
    fn direct(&mut self, starts: &[(Named, i64)], apart: bool) {
        for (named, _) in starts {
            if apart {
                self.split(named);
            } else {
                self.fetch.forward(&named.0, named.1);
            }
        }
    }

    /// Answers [`Event::Revoked`]; waits for commits in flight.
    pub fn unassign(&mut self, partitions: &[Named]) -> Result<(), KafkaError> {
        if let Some(wire) = &self.wire {
            wire.forget(partitions);
        }
        let unassigned = self.base.incremental_unassign(&names(partitions));
        self.own.retain(|named, _| !partitions.contains(named));
        unassigned
    }

    /// Stops fetching the partitions; what was already fetched may still arrive.
    pub fn pause(&self, partitions: &[Named]) -> Result<(), KafkaError> {
        if let Some(wire) = &self.wire {
            wire.pause(partitions);
            return Ok(());
        }
        self.base.pause(&names(partitions))
    }

    /// Fetches again, each partition from the position given.
    pub fn resume_at(&mut self, starts: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        if let Some(wire) = &mut self.wire {
            wire.position(starts.iter().cloned());
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for Position { named: (topic, partition), offset, .. } in starts {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        fetch::set_epochs(&mut list, starts.iter().map(|start| start.epoch));
        let list = self.base.seek_partitions(list, timeout)?;
        for entry in list.elements() {
            entry.error()?;
        }
        self.base.resume(&list)
    }

    /// Reads what the group has committed. Blocks up to `timeout`.
    pub fn committed(&self, partitions: &[Named], timeout: Duration) -> Result<Vec<Committed>, RDKafkaErrorCode> {
        if partitions.is_empty() { Ok(Vec::new()) } else { committed(&self.base, partitions, timeout) }
    }

    /// Sends a commit; its result comes through [`Member::commit_result`] with the same `id`.
    pub fn commit(&self, offers: &[Offer], id: usize) -> Result<(), RDKafkaErrorCode> {
        self.commits.send(offers, id)
    }

    /// The next result of a commit, waiting up to `timeout`.
    pub fn commit_result(&self, timeout: Duration) -> Option<Outcome> {
        self.commits.poll(timeout)
    }

    /// First offset still held and last stable offset (high watermark with `read_uncommitted`), asked of the broker.
    pub fn ends(&self, (topic, partition): &Named, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        self.base.fetch_watermarks(topic, *partition, timeout)
    }

    /// The same as the last fetch told it; no request.
    pub fn known_ends(&self, named: &Named) -> Option<(i64, i64)> {
        match &self.wire {
            Some(wire) => wire.ends(named),
            None => group::known_ends(&self.base, &named.0, named.1),
        }
    }

    /// The id of a topic's current incarnation; none where the cluster has no ids.
    pub fn topic_id(&self, topic: &str, timeout: Duration) -> Result<TopicId, RDKafkaErrorCode> {
        topic_id(&self.base, topic, timeout)
    }

    /// Number of partitions of a topic, or why it has none.
    pub fn partitions_of(&self, topic: &str, timeout: Duration) -> Result<usize, KafkaError> {
        let metadata = self.base.fetch_metadata(Some(topic), timeout)?;
        let found = metadata.topics().iter().find(|entry| entry.name() == topic);
        match found.map(|entry| (entry.error(), entry.partitions().len())) {
            Some((None, partitions)) if partitions > 0 => Ok(partitions),
            Some((Some(error), _)) => Err(KafkaError::MetadataFetch(error.into())),
            _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)),
        }
    }

    /// The current membership, `None` before the first join.
    pub fn membership(&self) -> Option<Membership> {
        group::membership(&self.base)
    }

    /// Leaves the group (a static member keeps its seat until its session ends) and destroys the client. Blocks until
    /// librdkafka has closed. `batch` must be empty: a live message would keep the client from closing.
    pub fn close(self, batch: &mut Batch) {
        batch.clear();
        drop(self);
    }
}

/// The id of a topic's current incarnation; none where the cluster has no ids.
pub(super) fn topic_id<C: ConsumerContext + 'static>(
    base: &Arc<BaseConsumer<C>>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicId, RDKafkaErrorCode> {
    // The mock cluster names a controller that does not exist; the question would only time out.
    let cluster = base.client().fetch_cluster_id(timeout);
    if cluster.is_some_and(|id| id.starts_with(MOCK_CLUSTER)) {
        return Ok(TopicId::default());
    }
    topics::topic_id(base, topic, timeout)
}

/// How librdkafka fetches; the example that measures librdkafka alone uses the same. `queue_bytes` is what librdkafka may
/// hold for one partition.
pub fn set_fetching(config: &mut ClientConfig, queue_bytes: usize) {
    config
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", (queue_bytes / 1024).max(1).to_string())
        // Small messages take several times their size in memory while they are queued.
        .set("queued.min.messages", "10000")
        // librdkafka looks again only after a second when a queue was full.
        .set("fetch.queue.backoff.ms", "2");
}

impl Drop for Member {
    fn drop(&mut self) {
        // Also on a panic: from here on nobody answers rebalances but the callback itself.
        self.base.context().close();
    }
}

pub(super) fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    let heartbeat = (settings.session_timeout / 6).min(HEARTBEAT_MAX).as_millis();
    config.set("client.id", "forebay").set("heartbeat.interval.ms", heartbeat.to_string());
    set_fetching(&mut config, settings.queue_bytes);
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", &settings.group)
        .set("session.timeout.ms", settings.session_timeout.as_millis().to_string())
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set_log_level(RDKafkaLogLevel::Info);
    if let Some(id) = &settings.instance_id {
        config.set("group.instance.id", id);
    }
    config
}

fn names(partitions: &[Named]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

fn offsets(starts: &[(Named, i64)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(starts.len());
    for ((topic, partition), offset) in starts {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}
