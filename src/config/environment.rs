//! Which environment variables are settings.
//!
//! Promises: pure; each variable with the prefix is a setting, known or not, except for those named here.

/// What every setting from the environment starts with; `__` stands for a dot.
pub const PREFIX: &str = "FOREBAY_";

/// With the prefix: what `io::hook`, the project's tests and its scripts read. Their child processes inherit them.
const OTHERS: [&str; 28] = [
    "BINARY",
    "BROKER_HEAP",
    "DAMAGED",
    "FAULTS_DIR",
    "FAULTS_SHAPE",
    "FAULTS_UNTIL",
    "FLIPS",
    "HOOK_AFTER_SYNC",
    "HOOK_AFTER_WRITE",
    "JOINT_LIVES",
    "KILLS",
    "MUSEUM_LIMIT",
    "MUSEUM_TARGET",
    "PERCENT",
    "QUOTA_MIB",
    "RATE",
    "REAL_FAULTS",
    "REMOVE",
    "ROUNDS",
    "RUNS",
    "SEED",
    "SOAK",
    "STALL_SECONDS",
    "SWEEP_JOB",
    "SWEEP_STATES",
    "TAILS",
    "TAIL_LIFE",
    "WRITE_SEEDS",
];

/// The dotted name of the setting that a variable stands for; `None` if it stands for none.
pub fn setting(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(PREFIX)?;
    (!OTHERS.contains(&rest) && !is_of_a_service(rest)).then(|| rest.to_lowercase().replace("__", "."))
}

/// Kubernetes tells every pod of services named `forebay` or `forebay-…` where they are.
fn is_of_a_service(rest: &str) -> bool {
    let name = format!("_{rest}");
    let is_port = |name: &str| ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    let is_named = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.ends_with("_PORT");
    !rest.contains("__") && (is_named || name.contains("_PORT_") && is_port(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::find;

    #[test]
    fn no_exception_hides_a_setting() {
        for other in OTHERS {
            assert!(find(&other.to_lowercase()).is_none() && !other.contains("__"), "{other}");
        }
    }

    #[test]
    fn what_starts_with_the_prefix_is_a_setting() {
        for (variable, expected) in [
            ("FOREBAY_SINK__FORMAT", Some("sink.format")),
            ("FOREBAY_KAFKA__PROPERTIES__SASL__PASSWORD", Some("kafka.properties.sasl.password")),
            ("FOREBAY_REQUIR", Some("requir")),
            ("FOREBAY_KAFKA_GROUP", Some("kafka_group")),
            ("FOREBAY_", Some("")),
            ("FOREBAY_SEED", None),
            ("FOREBAY_SERVICE_HOST", None),
            ("FOREBAY_SERVICE_PORT_HTTP", None),
            ("FOREBAY_PORT", None),
            ("FOREBAY_PORT_9100_TCP_ADDR", None),
            ("FOREBAY_METRICS_SERVICE_PORT", None),
            ("FOREBAY_SERVER__PORT", Some("server.port")),
            ("FOREBAYS", None),
            ("PATH", None),
        ] {
            assert_eq!(setting(variable).as_deref(), expected, "{variable}");
        }
    }
}
