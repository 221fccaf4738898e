//! Time and what the process has used so far.
//!
//! Promises: [`monotonic`] never goes back; nothing here blocks. Never: a fact the system does not tell is a zero, not
//! an error, because these numbers are for people.

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Enough for `/proc/self/status`, which is about 1.5 KiB.
const STATUS_BYTES: usize = 8192;

/// Time since the first call in this process; never goes back.
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Milliseconds since 1970, UTC; what Kafka's timestamps count. May jump when the system's clock is set.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// CPU seconds, user and system, that all threads of this process have used.
pub fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Bytes of memory resident now.
pub fn rss_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// The most bytes of memory that were resident at once since the process started.
pub fn rss_peak_bytes() -> u64 {
    status_bytes("VmHWM:")
}

fn status_bytes(field: &str) -> u64 {
    let mut text = [0; STATUS_BYTES];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open("/proc/self/status", flags, Mode::empty()) else {
        return 0;
    };
    let read = rustix::io::read(&file, &mut text).unwrap_or(0);
    parse_status(&String::from_utf8_lossy(&text[..read]), field).unwrap_or(0)
}

/// The value of a `kB` line of `/proc/*/status`, in bytes.
fn parse_status(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read_in_bytes() {
        let text = "Name:\tforebay\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(parse_status(text, "VmHWM:"), Some(20 * 1024));
        assert_eq!(parse_status(text, "VmRSS:"), Some(12 * 1024));
        assert_eq!(parse_status(text, "VmSwap:"), None);
        assert_eq!(parse_status("VmRSS:\tmany kB\n", "VmRSS:"), None);
    }

    #[test]
    fn the_process_has_used_something() {
        let before = monotonic();
        assert!(cpu_seconds() > 0.0);
        assert!(rss_bytes() > 0 && rss_peak_bytes() >= rss_bytes() / 2);
        assert!(monotonic() >= before);
        assert!(wall_ms() > 1_600_000_000_000);
    }
}
