use super::*;

#[test]
fn buckets_tile_all_numbers() {
    for bucket in 0..BUCKETS {
        let (low, high) = (lower_bound(bucket), lower_bound(bucket + 1));
        assert!(low < high, "{bucket}");
        assert_eq!(bucket_of(low), bucket);
        assert_eq!(bucket_of(high - 1), bucket);
        assert!((high - low) as f64 <= (low as f64 / 16.0).max(1.0) * 1.001);
    }
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}

#[test]
fn quantiles_are_close() {
    let latencies = Latencies::default();
    assert_eq!(latencies.quantile(0.5), None);
    for micros in 1..=1000 {
        latencies.observe(Duration::from_micros(micros));
    }
    for (p, exact) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
        let found = latencies.quantile(p).unwrap().as_secs_f64() * 1e6;
        assert!((found / exact - 1.0).abs() < 0.05, "{p}: {found} for {exact}");
    }
    assert_eq!(latencies.count(), 1000);
}

#[test]
fn names_and_units_are_what_the_documents_say() {
    let metrics = Metrics::new();
    metrics.records_received.inc_by(3);
    metrics.commits_refused.inc();
    metrics.wal_fsync_seconds.observe(Duration::from_millis(3));
    metrics.wal_fsync_seconds.observe(Duration::from_secs(60));
    let text = metrics.encode();
    for line in [
        "forebay_records_received_total 3",
        "forebay_commits_total{result=\"refused\"} 1",
        "forebay_commits_total{result=\"ok\"} 0",
        "forebay_wal_fsync_seconds_count 2",
        "forebay_wal_fsync_seconds_bucket{le=\"0.0025\"} 0",
        "forebay_wal_fsync_seconds_bucket{le=\"0.005\"} 1",
        "forebay_wal_fsync_seconds_bucket{le=\"10.0\"} 1",
        "forebay_wal_fsync_seconds_bucket{le=\"+Inf\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_was_lost_of_a_partition_stays() {
    let metrics = Metrics::new();
    metrics.lost("orders", 3, 40);
    metrics.lost("orders", 3, 2);
    metrics.time_to_loss("orders", 3, Some(Duration::from_millis(90_900)));
    let text = metrics.encode();
    assert!(text.contains("forebay_time_to_loss_seconds{topic=\"orders\",partition=\"3\"} 90\n"), "{text}");
    metrics.forget_partition("orders", 3);
    let text = metrics.encode();
    for line in [
        "forebay_lost_ranges_total{topic=\"orders\",partition=\"3\"} 2",
        "forebay_lost_records_total{topic=\"orders\",partition=\"3\"} 42",
        "forebay_gaps_total 2",
        "forebay_gaps_records_total 42",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("forebay_time_to_loss_seconds{"), "{text}");
}

#[test]
fn a_revoked_partition_leaves_no_series() {
    let metrics = Metrics::new();
    let ours = metrics.partition("orders", 3);
    ours.lag.set(17);
    let text = metrics.encode();
    assert!(text.contains("forebay_lag_records{topic=\"orders\",partition=\"3\"} 17\n"), "{text}");
    metrics.forget_partition("orders", 3);
    assert!(!metrics.encode().contains("orders"));
}
