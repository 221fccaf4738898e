//! Which number stands for which incarnation of which topic. Shared by receivers and processor; the log holds the same.

use super::{TopicId, TopicNumber};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// One incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The log's number for it.
    pub number: TopicNumber,
    /// Its name.
    pub name: String,
    /// Kafka's id of it.
    pub id: TopicId,
    /// 0 for the first incarnation of this name, 1 for the next…
    pub incarnation: u32,
}

/// All topics the log knows. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    by_number: Arc<RwLock<BTreeMap<TopicNumber, Topic>>>,
}

impl Topics {
    /// The topics of a recovered log, as (number, name, id).
    pub fn new(known: impl IntoIterator<Item = (TopicNumber, String, TopicId)>) -> Self {
        let topics = Self::default();
        for (number, name, id) in known {
            topics.insert(number, name, id);
        }
        topics
    }

    fn insert(&self, number: TopicNumber, name: String, id: TopicId) -> Topic {
        let mut by_number = self.by_number.write().unwrap_or_else(PoisonError::into_inner);
        let earlier = by_number.range(..number).filter(|(_, topic)| topic.name == name).count();
        let topic = Topic { number, name, id, incarnation: earlier as u32 };
        by_number.insert(number, topic.clone());
        topic
    }

    /// The topic of a number.
    pub fn get(&self, number: TopicNumber) -> Option<Topic> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The newest incarnation of a name.
    pub fn newest(&self, name: &str) -> Option<Topic> {
        let by_number = self.by_number.read().unwrap_or_else(PoisonError::into_inner);
        by_number.values().rev().find(|topic| topic.name == name).cloned()
    }

    /// The topic with this name and id, or a new number for it; true if it is new and must be logged before it is used.
    /// A broker without ids has one incarnation of each name.
    pub fn resolve(&self, name: &str, id: TopicId) -> (Topic, bool) {
        let next = {
            let by_number = self.by_number.read().unwrap_or_else(PoisonError::into_inner);
            let same = |topic: &&Topic| topic.name == name && (topic.id == id || id.is_none());
            if let Some(found) = by_number.values().rev().find(same) {
                return (found.clone(), false);
            }
            by_number.keys().next_back().map_or(1, |last| last + 1)
        };
        (self.insert(next, name.to_string(), id), true)
    }

    /// All topics, by number.
    pub fn all(&self) -> Vec<Topic> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_created_again_is_another_one() {
        let (old, new) = (TopicId([1; 16]), TopicId([2; 16]));
        let topics = Topics::new([(1, "t".to_string(), old)]);
        assert_eq!(topics.resolve("t", old), (topics.get(1).unwrap(), false));
        let (again, is_new) = topics.resolve("t", new);
        assert_eq!((again.number, again.incarnation, is_new), (2, 1, true));
        assert_eq!(topics.newest("t").unwrap().number, 2);
        assert_eq!(topics.resolve("u", new).0.incarnation, 0);
        assert_eq!(topics.resolve("t", TopicId::default()).0.number, 2, "a broker without ids");
    }
}
