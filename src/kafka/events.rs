//! What happens to a member of a group: librdkafka's callbacks, kept in order until the receiver asks.
//!
//! Promises: a callback only notes; the receiver answers on the thread that polls. Never: it decides anything, but while
//! the member closes, when nobody answers any more.

use super::consumer::Named;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something that happened to the member.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Partitions were added; answer with [`super::consumer::Member::assign`].
    Assigned(Vec<Named>),
    /// Partitions are taken away; answer with [`super::consumer::Member::unassign`].
    Revoked {
        /// Which.
        partitions: Vec<Named>,
        /// True when they already belong to someone else: commits will be refused.
        lost: bool,
    },
    /// An error of the client or of a broker.
    Error {
        /// Its code.
        code: Option<RDKafkaErrorCode>,
        /// The client is beyond use.
        fatal: bool,
        /// For people.
        text: String,
    },
}

/// The callbacks' side of a member.
#[derive(Default)]
pub struct Context {
    events: Mutex<VecDeque<Event>>,
    closing: AtomicBool,
}

impl Context {
    pub(super) fn push(&self, event: Event) {
        self.events().push_back(event);
    }

    pub(super) fn pop(&self) -> Option<Event> {
        self.events().pop_front()
    }

    /// From here on nobody answers rebalances but the callback itself.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", facility, "{message}"),
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.push(Event::Error { code: error.rdkafka_error_code(), fatal: false, text: reason.to_string() });
    }
}

impl ConsumerContext for Context {
    /// Only notes what happened: the poll that called this returns, and the receiver answers on the same thread.
    fn rebalance(&self, base: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // While the member closes nobody answers events any more; its partitions were let go of in order before.
            let _ = if assigned {
                base.incremental_assign(&TopicPartitionList::new())
            } else {
                base.incremental_unassign(list)
            };
            return;
        }
        let partitions = list.elements().iter().map(|entry| (entry.topic().to_string(), entry.partition())).collect();
        self.push(if assigned {
            Event::Assigned(partitions)
        } else {
            Event::Revoked { partitions, lost: base.assignment_lost() }
        });
    }
}
