//! Live load: a thread that produces at a steady rate until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Kafka;
use super::produce::Numbered;

/// A running producer. Dropping it stops it.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<u64>>,
}

impl Load {
    /// Produces `per_second` records a second, evenly over the partitions, numbered on from `from` in each.
    pub fn start(
        kafka: &'static Kafka,
        topic: &str,
        partitions: i32,
        from: u64,
        per_second: u64,
        bytes: usize,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopped, counter, topic) = (stop.clone(), sent.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut producer = Numbered::new(kafka, &topic);
            let start = Instant::now();
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = start.elapsed().as_millis() as u64 * per_second / 1000;
                while rounds * (partitions as u64) < due {
                    for partition in 0..partitions {
                        producer.send(partition, from + rounds, bytes);
                    }
                    rounds += 1;
                    counter.store(rounds, Ordering::Relaxed);
                }
                producer.poll();
                std::thread::sleep(Duration::from_millis(2));
            }
            let confirmed = producer.flush();
            assert_eq!(confirmed, rounds * partitions as u64);
            from + rounds
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// Records sent to each partition so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and returns the number of the next record in each partition: all below are in the topic.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
