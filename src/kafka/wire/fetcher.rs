//! The threads that fetch: one that finds out who leads what, and one for each broker that leads something.
//!
//! Promises: nothing here is decided, that is [`super::state`]'s; no lock is held while a socket is waited for, bytes are
//! checked or decoded. Never: a thread outlives its [`super::Wire`] by more than one bounded wait.

use super::answer::{Answer, Asked, Ends, Outcome, Request};
use super::batches::Aborted;
use super::connection::{Connection, ConnectionError};
use super::eligible::Fetching;
use super::state::State;
use crate::io::pool::Pool;
use crate::kafka::consumer::Named;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{HashMap, HashSet};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Between two questions for the same leaders, and between two tries to connect.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an idle thread rests when nothing wakes it.
const REST: Duration = Duration::from_millis(100);
/// The oldest version that tells where histories part, and the first that names topics by id.
const FETCH_MIN: i16 = 12;
const FETCH_BY_ID: i16 = 13;
/// The first that tells ids, and the newest used.
const METADATA_MIN: i16 = 10;
const METADATA_MAX: i16 = 12;
const UNKNOWN_TOPIC: i16 = 3;
/// Leaders are asked for this often even if none is missing: one that is cut off may not know that it leads no more.
const REFRESH: Duration = Duration::from_secs(60);
/// Failures in a row before somebody is told.
const FAILURES: u32 = 5;

/// What all threads share.
pub(super) struct Shared {
    pub fetching: Fetching,
    pub state: Mutex<State>,
    /// Something arrived.
    pub arrived: Condvar,
    /// Something may be asked for.
    pub wanted: Condvar,
    pub pool: Pool,
    /// Ends waiting for an answer.
    sockets: Mutex<HashMap<i32, TcpStream>>,
}

impl Shared {
    pub fn new(fetching: Fetching, budget: usize) -> Self {
        let state = State::new(budget, fetching.partition_bytes as usize);
        // One is being filled, one or two are being taken from.
        let idle = 2;
        Self {
            fetching,
            state: Mutex::new(state),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
            pool: Pool::new(idle),
            sockets: Mutex::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests until something is wanted, or the time is over.
    fn rest(&self, state: MutexGuard<'_, State>, time: Duration) {
        drop(self.wanted.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner));
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<i32, TcpStream>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all threads.
    pub fn stop(&self) {
        self.state().end();
        self.wanted.notify_all();
        for socket in self.sockets().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn give_up(&self, why: String) {
        self.state().gave_up.get_or_insert(why);
        self.arrived.notify_all();
    }
}

/// Starts the threads.
pub(super) fn start(shared: &Arc<Shared>) {
    spawn("leaders".to_owned(), shared, lead);
}

/// Nobody would do the work of a thread that can't be started or dies.
fn spawn(name: String, shared: &Arc<Shared>, work: impl FnOnce(&Arc<Shared>) + Send + 'static) {
    let of_it = Arc::clone(shared);
    let guarded = move || {
        let guard = Guard(&of_it);
        work(&of_it);
        std::mem::forget(guard);
    };
    if let Err(error) = thread::Builder::new().name(name).spawn(guarded) {
        shared.give_up(format!("cannot start a thread: {error}"));
    }
}

/// Dropped by a panic only.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.give_up("a thread that fetches has panicked".to_owned());
    }
}

/// Finds leaders, and starts a thread for each, until it is over.
fn lead(shared: &Arc<Shared>) {
    let mut served: HashSet<i32> = HashSet::new();
    let mut connection = None;
    let (mut turn, mut last) = (0, Instant::now());
    loop {
        let state = shared.state();
        if state.stop || state.gave_up.is_some() {
            return;
        }
        let is_due = last.elapsed() >= REFRESH;
        if !state.is_lost && !is_due {
            shared.rest(state, REST);
            continue;
        }
        let topics = state.topics(is_due);
        drop(state);
        last = Instant::now();
        match find(shared, &mut connection, &mut turn, topics) {
            Ok(found) => learn(shared, found),
            Err(ConnectionError::Old(why)) => shared.give_up(why),
            Err(error) => {
                tracing::debug!("cannot learn who leads: {error}");
                connection = None;
            }
        }
        let leaders = shared.state().leaders();
        for broker in leaders.into_iter().filter(|broker| served.insert(*broker)) {
            spawn(format!("fetch-{broker}"), shared, move |shared| serve(shared, broker));
        }
        shared.wanted.notify_all();
        if shared.state().is_lost {
            // Another one may know more.
            connection = None;
            thread::sleep(AGAIN);
        }
    }
}

/// Asks one broker after the other until one answers.
fn find(
    shared: &Shared,
    connection: &mut Option<Connection>,
    turn: &mut usize,
    topics: Vec<String>,
) -> Result<MetadataResponse, ConnectionError> {
    let open = if let Some(open) = connection {
        open
    } else {
        let known: Vec<(String, u16)> = shared.state().brokers.values().cloned().collect();
        let all: Vec<_> = shared.fetching.bootstrap.iter().chain(&known).collect();
        let (host, port) = all[*turn % all.len()];
        *turn += 1;
        connection.insert(Connection::open(host, *port, &shared.fetching.client_id, &shared.pool)?)
    };
    let named =
        |topic: String| MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(topic))));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.into_iter().map(named).collect()))
        .with_allow_auto_topic_creation(false);
    let version = open.version::<MetadataRequest>(METADATA_MIN, METADATA_MAX)?;
    open.ask(&request, version, Duration::ZERO)
}

fn learn(shared: &Shared, found: MetadataResponse) {
    let mut state = shared.state();
    for broker in found.brokers {
        let port = u16::try_from(broker.port).unwrap_or(0);
        state.brokers.insert(broker.node_id.0, (broker.host.to_string(), port));
    }
    for topic in found.topics {
        let Some(name) = topic.name.map(|name| name.0.to_string()) else { continue };
        if topic.error_code == UNKNOWN_TOPIC {
            state.is_unknown(&name, Instant::now());
        }
        if topic.error_code != 0 {
            continue;
        }
        state.is_now(&name, topic.topic_id);
        for partition in topic.partitions {
            let named: Named = (name.clone(), partition.partition_index);
            state.leads(&named, partition.leader_id.0, partition.leader_epoch);
        }
    }
    state.look_for_leaders();
    drop(state);
    shared.arrived.notify_all();
}

/// Fetches what one broker leads, until it is over.
fn serve(shared: &Shared, broker: i32) {
    let (mut connection, mut failures) = (None, 0);
    loop {
        let mut state = shared.state();
        if state.stop || state.gave_up.is_some() {
            return;
        }
        let now = Instant::now();
        let Some(request) = state.plan(broker, now) else {
            let time = state.next_try(broker, now).map_or(REST, |next| next.saturating_duration_since(now).min(REST));
            shared.rest(state, time.max(Duration::from_millis(1)));
            continue;
        };
        let address = state.brokers.get(&broker).cloned();
        drop(state);
        let number = request.number;
        let answered = ask(shared, &mut connection, broker, address, &request);
        match answered {
            Ok(answer) => {
                failures = 0;
                let outcomes = outcomes(shared, request, answer);
                shared.state().apply(number, outcomes, Instant::now());
                shared.arrived.notify_all();
            }
            Err(ConnectionError::Old(why)) => shared.give_up(why),
            Err(error) => {
                failures += 1;
                tracing::debug!(broker, failures, "fetching: {error}");
                if failures == FAILURES {
                    tracing::warn!(broker, "cannot fetch: {error}; trying again");
                }
                connection = None;
                shared.sockets().remove(&broker);
                let mut state = shared.state();
                state.failed_request(number, AGAIN, Instant::now());
                state.lost(broker);
                drop(state);
                shared.wanted.notify_all();
            }
        }
    }
}

fn ask(
    shared: &Shared,
    connection: &mut Option<(String, u16, Connection)>,
    broker: i32,
    address: Option<(String, u16)>,
    request: &Request,
) -> Result<FetchResponse, ConnectionError> {
    let nobody = || ConnectionError::Protocol(format!("broker {broker} has no address"));
    let (host, port) = address.ok_or_else(nobody)?;
    // Somebody else may have its old address by now.
    connection.take_if(|(old, at, _)| (&*old, *at) != (&host, port));
    let (_, _, open) = if let Some(open) = connection {
        open
    } else {
        let open = Connection::open(&host, port, &shared.fetching.client_id, &shared.pool)?;
        shared.sockets().insert(broker, open.handle()?);
        connection.insert((host, port, open))
    };
    let by_id = request.topics.iter().all(|(id, _)| !id.is_nil());
    let version = open.version::<FetchRequest>(FETCH_MIN, if by_id { FETCH_BY_ID } else { FETCH_MIN })?;
    let message = message(&shared.fetching, request);
    open.ask(&message, version, Duration::from_millis(message.max_wait_ms as u64))
}

fn message(fetching: &Fetching, request: &Request) -> FetchRequest {
    let most = request.wait_max.and_then(|most| i32::try_from(most.as_millis()).ok()).unwrap_or(i32::MAX);
    let partition = |asked: &Asked| {
        FetchPartition::default()
            .with_partition(asked.named.1)
            .with_current_leader_epoch(asked.leader_epoch)
            .with_fetch_offset(asked.next)
            .with_last_fetched_epoch(asked.epoch)
            .with_partition_max_bytes(i32::try_from(request.partition_bytes).unwrap_or(i32::MAX))
    };
    let topic = |(id, partitions): &(Uuid, Vec<Asked>)| {
        FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_string(partitions[0].named.0.clone())))
            .with_topic_id(*id)
            .with_partitions(partitions.iter().map(partition).collect())
    };
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(fetching.wait_ms.min(most))
        .with_min_bytes(fetching.min_bytes)
        .with_max_bytes(fetching.max_bytes)
        .with_isolation_level(i8::from(fetching.read_committed))
        .with_session_epoch(-1)
        .with_topics(request.topics.iter().map(topic).collect())
}

/// Puts answers to questions. What was not asked for is left out.
fn outcomes(shared: &Shared, request: Request, answer: FetchResponse) -> Vec<(Arc<Named>, Outcome)> {
    if answer.error_code != 0 {
        let failed = |asked: Asked| (asked.named, Outcome::Failed(answer.error_code));
        return request.topics.into_iter().flat_map(|(_, asked)| asked).map(failed).collect();
    }
    let mut names: HashMap<Uuid, String> = HashMap::new();
    let mut asked: HashMap<String, HashMap<i32, Asked>> = HashMap::new();
    for (id, of_topic) in request.topics {
        let name = of_topic[0].named.0.clone();
        names.insert(id, name.clone());
        asked.entry(name).or_default().extend(of_topic.into_iter().map(|one| (one.named.1, one)));
    }
    let each = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let bytes: usize = each.filter_map(|data| data.records.as_ref()).map(Bytes::len).sum();
    let all = request.apart.then_some(bytes);
    let mut outcomes = Vec::new();
    for topic in answer.responses {
        // By name or by id, as it was asked for.
        let name = if topic.topic.0.is_empty() {
            names.get(&topic.topic_id).map(String::as_str)
        } else {
            Some(topic.topic.0.as_str())
        };
        let Some(of_topic) = name.and_then(|name| asked.get(name)) else { continue };
        for data in topic.partitions {
            if let Some(one) = of_topic.get(&data.partition_index) {
                let outcome = Outcome::of(one, partition(shared.fetching.read_committed, data), all);
                outcomes.push((Arc::clone(&one.named), outcome));
            }
        }
    }
    outcomes
}

fn partition(read_committed: bool, data: PartitionData) -> Answer {
    let aborted = data.aborted_transactions.unwrap_or_default();
    let each = |one: kafka_protocol::messages::fetch_response::AbortedTransaction| Aborted {
        producer: one.producer_id.0,
        first: one.first_offset,
    };
    Answer {
        error: data.error_code,
        ends: Ends {
            low: data.log_start_offset,
            end: if read_committed { data.last_stable_offset } else { data.high_watermark },
            high: data.high_watermark,
        },
        diverging: (data.diverging_epoch.end_offset >= 0)
            .then_some((data.diverging_epoch.epoch, data.diverging_epoch.end_offset)),
        aborted: aborted.into_iter().map(each).collect(),
        records: data.records.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::fetch_response::FetchableTopicResponse;
    use std::collections::BTreeMap;

    fn fetching() -> Fetching {
        crate::kafka::wire::eligible::judge("127.0.0.1:1", &BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_broker_is_told_to_wait_no_longer_than_the_others_can() {
        let wait = |wait_max| message(&fetching(), &Request { wait_max, ..Request::default() }).max_wait_ms;
        assert_eq!(wait(None), fetching().wait_ms);
        assert_eq!(wait(Some(Duration::from_micros(3_900))), 3);
        assert_eq!(wait(Some(Duration::from_secs(9))), fetching().wait_ms);
    }

    #[test]
    fn parts_of_an_answer_share_its_memory_only_where_they_are_taken_in_turn() {
        let whole = Bytes::from(vec![0; 1000]);
        let asked = |partition| {
            let named = Arc::new(("t".to_owned(), partition));
            Asked { named, next: 0, epoch: -1, leader_epoch: -1 }
        };
        for apart in [false, true] {
            let request =
                Request { apart, topics: vec![(Uuid::nil(), vec![asked(0), asked(1)])], ..Request::default() };
            let part = |(partition, records): (i32, Bytes)| {
                PartitionData::default().with_partition_index(partition).with_records(Some(records))
            };
            let parts = [(0, whole.slice(..900)), (1, whole.slice(900..))].map(part).to_vec();
            let topic = TopicName(StrBytes::from_static_str("t"));
            let topic = FetchableTopicResponse::default().with_topic(topic).with_partitions(parts);
            let answer = FetchResponse::default().with_responses(vec![topic]);
            let shared = Shared::new(fetching(), 1 << 20);
            let found = outcomes(&shared, request, answer).into_iter().map(|(named, outcome)| match outcome {
                Outcome::Took { bytes, .. } => (named.1, whole.as_ptr_range().contains(&bytes.as_ptr())),
                other => panic!("{other:?}"),
            });
            assert_eq!(found.collect::<Vec<_>>(), [(0, true), (1, !apart)]);
        }
    }

    #[test]
    fn a_thread_that_panics_leaves_it_to_librdkafka_and_one_that_ends_does_not() {
        let shared = Arc::new(Shared::new(fetching(), 1 << 20));
        let wait = |what: &dyn Fn() -> bool| {
            let until = Instant::now() + Duration::from_secs(10);
            while !what() {
                assert!(Instant::now() < until);
                thread::yield_now();
            }
        };
        spawn("ends".to_owned(), &shared, |_| ());
        wait(&|| Arc::strong_count(&shared) == 1);
        assert_eq!(shared.state().gave_up, None);
        spawn("panics".to_owned(), &shared, |_| panic!("on purpose"));
        wait(&|| shared.state().gave_up.as_deref() == Some("a thread that fetches has panicked"));
    }
}
