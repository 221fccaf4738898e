//! Which topics there are, and whether they are still the same ones: by their ids.

use super::ReceiverError;
use super::assign::ASK;
use super::poll::Receiver;
use crate::record::topics::Topic;
use crate::record::{Partition, TopicId};
use crate::wal::Entry;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often topics are asked whether they are still the same.
const IDENTITY: Duration = Duration::from_secs(60);

impl Receiver<'_> {
    /// A topic's id; none where the broker has no ids.
    pub(super) fn identity(&self, topic: &str) -> Result<TopicId, String> {
        match self.member.topic_id(topic, ASK) {
            Ok(id) => Ok(id),
            Err(RDKafkaErrorCode::UnsupportedFeature) => Ok(TopicId::default()),
            Err(error) => Err(format!("cannot read the topic's id: {error}")),
        }
    }

    /// The topic of this name and id; logged when it is new.
    pub(super) fn resolve(&self, topic: &str, id: TopicId) -> Result<Topic, ReceiverError> {
        let log = |topic: &Topic| {
            let (number, name) = (topic.number, topic.name.clone());
            Ok(self.shared.log.append(Entry::Topic { number, name, id })?)
        };
        self.shared.topics.resolve(topic, id, log)
    }

    /// The partition's last life that the log knows, if this topic was created again since.
    pub(super) fn former(&self, topic: &str, partition: Partition) -> Option<Partition> {
        let owners = self.owners();
        let earlier = self.shared.topics.all().into_iter().rev();
        let earlier = earlier.filter(|known| known.name == topic && known.number < partition.topic);
        let mut lives = earlier.map(|known| Partition { topic: known.number, number: partition.number });
        lives.find(|life| owners.knows(*life))
    }

    /// Looks whether the topics are still the ones that were assigned.
    pub fn check_identities(&mut self) -> Result<(), ReceiverError> {
        let since = *self.assigning.identified.get_or_insert_with(Instant::now);
        if since.elapsed() < IDENTITY {
            return Ok(());
        }
        self.assigning.identified = Some(Instant::now());
        let names: BTreeSet<String> = self.lanes.iter().map(|lane| lane.named.0.clone()).collect();
        for name in names {
            let Ok(id) = self.identity(&name) else { continue };
            while let Some(lane) =
                (0..self.lanes.len()).find(|lane| self.lanes[*lane].named.0 == name && !self.is(*lane, id))
            {
                self.reopen(lane)?;
            }
        }
        Ok(())
    }

    /// True if what is read in this lane is a topic of this id, as far as is known.
    fn is(&self, lane: usize, id: TopicId) -> bool {
        let known = self.shared.topics.get(self.lanes[lane].slot.partition.topic);
        id.is_none() || known.is_none_or(|known| known.id == id)
    }

    /// Asks whether a topic is still the one that was assigned. False if it is not, or nobody answers. Blocks.
    pub(super) fn is_still_the_same(&self, lane: usize) -> bool {
        self.identity(&self.lanes[lane].named.0).is_ok_and(|id| self.is(lane, id))
    }

    /// Looks for the subscribed topics, to know how many partitions there are and to name one that does not exist.
    pub fn find_topics(&mut self) -> Result<(), ReceiverError> {
        let mut expected = 0;
        for topic in &self.options.topics {
            if topic.starts_with('^') {
                return Ok(());
            }
            match self.member.partitions_of(topic, ASK) {
                Ok(partitions) => expected += partitions,
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    if self.options.exit_at_end {
                        return Err(ReceiverError::NoTopic(topic.clone()));
                    }
                    tracing::warn!("topic {topic:?} does not exist on this cluster; waiting for it");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!("cannot reach {}: {error}; trying again", self.options.kafka.brokers);
                    self.trouble = Some(error.to_string());
                    return Ok(());
                }
            }
        }
        self.assigning.expected = Some(expected);
        self.heard();
        Ok(())
    }
}
