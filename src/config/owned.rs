//! The librdkafka settings that Forebay sets itself, because its promises hang on them.

/// Name, and the setting of ours to use instead (empty: there is none to choose).
const OWNED: &[(&str, &str)] = &[
    ("auto.commit.enable", ""),
    ("auto.commit.interval.ms", ""),
    ("auto.offset.reset", "kafka.start"),
    ("bootstrap.servers", "kafka.brokers"),
    ("enable.auto.commit", ""),
    ("enable.auto.offset.store", ""),
    ("enable.partition.eof", ""),
    ("group.id", "kafka.group"),
    ("group.instance.id", "kafka.static_membership"),
    ("group.protocol", ""),
    ("group.remote.assignor", ""),
    ("metadata.broker.list", "kafka.brokers"),
    ("offset.store.method", ""),
    ("offset.store.path", ""),
    ("partition.assignment.strategy", ""),
    ("queued.max.messages.kbytes", "memory.budget"),
    ("session.timeout.ms", "kafka.session_timeout"),
];

/// Why this librdkafka setting can't be chosen, if it can't.
pub(super) fn refusal(name: &str) -> Option<String> {
    let (_, ours) = OWNED.iter().find(|(owned, _)| *owned == name)?;
    Some(if ours.is_empty() {
        "is set by Forebay, whose promises hang on it; remove it".to_string()
    } else {
        format!("is set by Forebay: use {ours} instead")
    })
}

/// The names, for the reference.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OWNED.iter().map(|(name, _)| *name)
}
