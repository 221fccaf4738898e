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
        let mut by_number = BTreeMap::new();
        for (number, name, id) in known {
            by_number.insert(number, incarnation(&by_number, number, &name, id));
        }
        Self { by_number: Arc::new(RwLock::new(by_number)) }
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

    /// The topic with this name and id, or a new number for it, which is given to `log` before anyone can use it. A broker
    /// without ids has one incarnation of each name. Waits for other callers; `log` must not ask for topics.
    pub fn resolve<E>(&self, name: &str, id: TopicId, log: impl FnOnce(&Topic) -> Result<(), E>) -> Result<Topic, E> {
        let mut by_number = self.by_number.write().unwrap_or_else(PoisonError::into_inner);
        let same = |topic: &&Topic| topic.name == name && (topic.id == id || id.is_none());
        if let Some(found) = by_number.values().rev().find(same) {
            return Ok(found.clone());
        }
        let number = by_number.keys().next_back().map_or(1, |last| last + 1);
        let topic = incarnation(&by_number, number, name, id);
        log(&topic)?;
        by_number.insert(number, topic.clone());
        Ok(topic)
    }

    /// All topics, by number.
    pub fn all(&self) -> Vec<Topic> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

fn incarnation(known: &BTreeMap<TopicNumber, Topic>, number: TopicNumber, name: &str, id: TopicId) -> Topic {
    let earlier = known.range(..number).filter(|(_, topic)| topic.name == name).count();
    Topic { number, name: name.to_owned(), id, incarnation: earlier as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use std::sync::{Barrier, Mutex};

    fn resolve(topics: &Topics, name: &str, id: TopicId) -> (Topic, bool) {
        let mut is_new = false;
        let log = |_: &Topic| {
            is_new = true;
            Ok::<_, Infallible>(())
        };
        let topic = topics.resolve(name, id, log).unwrap();
        (topic, is_new)
    }

    #[test]
    fn a_topic_created_again_is_another_one() {
        let (old, new) = (TopicId([1; 16]), TopicId([2; 16]));
        let topics = Topics::new([(1, "t".to_string(), old)]);
        assert_eq!(resolve(&topics, "t", old), (topics.get(1).unwrap(), false));
        let (again, is_new) = resolve(&topics, "t", new);
        assert_eq!((again.number, again.incarnation, is_new), (2, 1, true));
        assert_eq!(topics.newest("t").unwrap().number, 2);
        assert_eq!(resolve(&topics, "u", new).0.incarnation, 0);
        assert_eq!(resolve(&topics, "t", TopicId::default()).0.number, 2, "a broker without ids");
    }

    #[test]
    fn topics_met_at_once_get_numbers_of_their_own_and_are_logged_once() {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        for _ in 0..200 {
            let (topics, logged) = (Topics::default(), Mutex::new(Vec::new()));
            let barrier = Barrier::new(2 * NAMES.len());
            let meet = |name: &str| {
                barrier.wait();
                let log = |topic: &Topic| {
                    logged.lock().unwrap().push((topic.number, topic.name.clone()));
                    Ok::<_, Infallible>(())
                };
                topics.resolve(name, TopicId([1; 16]), log).unwrap()
            };
            let found: BTreeSet<(TopicNumber, String)> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    NAMES.into_iter().chain(NAMES).map(|name| scope.spawn(move || meet(name))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .map(|topic| (topic.number, topic.name))
                    .collect()
            });
            let numbers: BTreeSet<TopicNumber> = found.iter().map(|(number, _)| *number).collect();
            assert_eq!((found.len(), numbers.len()), (4, 4), "{found:?}");
            let logged = logged.into_inner().unwrap();
            assert_eq!(logged.len(), 4, "{logged:?}");
            assert_eq!(logged.into_iter().collect::<BTreeSet<_>>(), found);
        }
    }

    #[test]
    fn a_topic_that_cannot_be_logged_is_not_known() {
        let topics = Topics::default();
        assert_eq!(topics.resolve("t", TopicId([1; 16]), |_| Err("full")), Err("full"));
        assert_eq!(topics.all(), []);
    }
}
