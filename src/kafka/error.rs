//! What librdkafka says when it can't be used.
//!
//! Promises: the value of a setting is in no text, because it may be a secret.

use rdkafka::error::KafkaError;

/// The error in words.
pub fn words(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, name, value) => refused(name, reason, value),
        other => other.to_string(),
    }
}

/// Why librdkafka refuses a setting, in its words unless they repeat the value, which may be a secret.
fn refused(name: &str, reason: &str, value: &str) -> String {
    let is_known = !reason.starts_with("No such configuration property");
    let other_words = reason.replace(name, "");
    let mut parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    if is_known && parts.any(|part| other_words.contains(part)) {
        return format!("librdkafka refuses the value of {name}");
    }
    format!("librdkafka refuses {name}: {}", reason.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::ClientConfig;
    use rdkafka::consumer::BaseConsumer;

    #[test]
    fn a_refused_setting_is_named_without_its_value() {
        for name in ["ssl.truststore.password", "security.protocol"] {
            let error = ClientConfig::new().set(name, "hunter2").create::<BaseConsumer>().err().unwrap();
            assert!(error.to_string().contains("hunter2"), "it is no secret any more: {error}");
            let text = words(&error);
            assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_librdkafka_refuses_is_named_without_its_value() {
        let unknown = "No such configuration property: \"ssl.truststore.password\"";
        let number = "Invalid value for configuration property \"fetch.wait.max.ms\"\n";
        for (name, reason, value, text) in [
            ("ssl.truststore.password", unknown, "s", format!("librdkafka refuses ssl.truststore.password: {unknown}")),
            (
                "fetch.wait.max.ms",
                number,
                "hunter2",
                format!("librdkafka refuses fetch.wait.max.ms: {}", number.trim()),
            ),
            (
                "debug",
                "Invalid value \"x1\" for \"debug\"",
                "all, x1",
                "librdkafka refuses the value of debug".to_string(),
            ),
        ] {
            assert_eq!(refused(name, reason, value), text);
        }
    }
}
