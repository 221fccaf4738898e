//! Topics, groups and committed offsets of the real broker.

use std::future::Future;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{Kafka, wait_for};

const LIMIT: Duration = Duration::from_secs(30);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Kafka {
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
    }

    /// Makes a topic and returns when its partitions have a leader.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.make(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), settings);
    }

    /// Makes a topic of one partition on these nodes; the first is to lead.
    pub fn create_topic_on(&self, nodes: &[i32], topic: &str, settings: &[(&str, &str)]) {
        self.make(NewTopic::new(topic, 1, TopicReplication::Variable(&[nodes])), settings);
    }

    fn make<'a>(&self, mut new: NewTopic<'a>, settings: &[(&'a str, &'a str)]) {
        let (topic, partitions) = (new.name, new.num_partitions);
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let admin = self.admin();
        // A topic of this name may still be on its way out: then the broker refuses for a moment.
        wait_for("new topic", LIMIT, || {
            let results = block_on(admin.create_topics([&new], &Self::options())).unwrap();
            results[0].is_ok().then_some(())
        });
        wait_for("leader of a new topic", LIMIT, || {
            let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT).ok()?;
            let parts = metadata.topics().first()?.partitions();
            let led = parts.iter().filter(|p| p.leader() >= 0).count();
            (led == partitions as usize).then_some(())
        });
    }

    /// Leader and replicas in sync of partition 0.
    pub fn leader(&self, topic: &str) -> Option<(i32, Vec<i32>)> {
        let metadata = self.admin().inner().fetch_metadata(Some(topic), LIMIT).ok()?;
        let partition = metadata.topics().first()?.partitions().first()?;
        Some((partition.leader(), partition.isr().to_vec()))
    }

    /// Deletes a topic and returns when the broker no longer knows it.
    pub fn delete_topic(&self, topic: &str) {
        let admin = self.admin();
        let results = block_on(admin.delete_topics(&[topic], &Self::options())).unwrap();
        results[0].as_ref().unwrap();
        wait_for("end of a deleted topic", LIMIT, || {
            let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT).ok()?;
            let topic = metadata.topics().first()?;
            topic.error().is_some().then_some(())
        });
    }

    /// Deletes the records of one partition below `before`, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        let done = block_on(self.admin().delete_records(&list, &Self::options())).unwrap();
        done.elements()[0].error().unwrap();
    }

    /// Deletes a group with its committed offsets; waits until its last member has left (a static one only when
    /// its session is over).
    pub fn delete_group(&self, group: &str) {
        let admin = self.admin();
        wait_for("deletable group", 2 * LIMIT, || {
            let results = block_on(admin.delete_groups(&[group], &Self::options())).unwrap();
            results[0].is_ok().then_some(())
        });
        assert_eq!(self.committed(group, "no-such-topic", 1), [None]);
    }

    /// The committed offset of each partition. Reads only: does not join the group.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        // A young broker has no coordinator for the group yet: it is asked again.
        let found = wait_for("answer of the group's coordinator", LIMIT, || {
            consumer.committed_offsets(list.clone(), LIMIT).ok()
        });
        let number = |offset| match offset {
            Offset::Offset(number) => Some(number),
            _ => None,
        };
        found.elements().iter().map(|e| number(e.offset())).collect()
    }

    /// Commits `offset` of one partition without being a member and without Forebay's metadata, as a person would who
    /// resets the group by hand. The group must have no members.
    pub fn commit_by_hand(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        // A static member that has ended keeps its seat until its session is over: until then the broker refuses.
        wait_for("commit by hand", 2 * LIMIT, || consumer.commit(&list, CommitMode::Sync).ok());
    }

    /// Commits again what the group has of partition 0, as it is, but for another leader epoch. The group must have no
    /// members.
    pub fn commit_in_epoch(&self, group: &str, topic: &str, epoch: i32) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let mut list = wait_for("commit", LIMIT, || consumer.committed_offsets(list.clone(), LIMIT).ok());
        forebay::kafka::ffi::fetch::set_epochs(&mut list, [epoch].into_iter());
        wait_for("commit again", 2 * LIMIT, || consumer.commit(&list, CommitMode::Sync).ok());
    }

    /// The high watermark of each partition.
    pub fn ends(&self, topic: &str, partitions: i32) -> Vec<i64> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        (0..partitions).map(|p| consumer.fetch_watermarks(topic, p, LIMIT).unwrap().1).collect()
    }

    /// The number of members of `group` right now.
    pub fn members(&self, group: &str) -> usize {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let groups = wait_for("list of the group", LIMIT, || consumer.fetch_group_list(Some(group), LIMIT).ok());
        groups.groups().first().map_or(0, |g| g.members().len())
    }
}
