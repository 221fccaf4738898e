//! What librdkafka can do at most: consumes a topic from its beginning to its end in batches and only counts.
//!
//!     cargo run --release --example consume -- BROKERS TOPIC
//!
//! The same as the mode `consume` of `forebay bench`; prints one JSON object. `seconds` and `cpu_seconds` run from the
//! first record to the last, as in the summary of `forebay run`.

use forebay::cli::bench::consume::{ConsumeArgs, consume};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic] = arguments.as_slice() else {
        anyhow::bail!("usage: consume BROKERS TOPIC");
    };
    let (brokers, topic) = (brokers.clone(), topic.clone());
    let args = ConsumeArgs { brokers, topic, property: Vec::new(), seconds: 0.0, follow: false };
    println!("{}", serde_json::json!(consume(&args, &mut std::io::sink())?));
    Ok(())
}
