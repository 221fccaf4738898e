//! May this block go to the sink? A pure function of the block and of what is known of its partition.

use crate::record::BlockHeader;
use crate::wal::Disowned;

/// What is known of a partition.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Next offset to deliver.
    pub delivered: i64,
    /// How far our confirmed commits reach; `None` when there is no fence.
    pub acked: Option<i64>,
    /// What was given up.
    pub disowned: &'a [Disowned],
}

/// What to do with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver it.
    Deliver,
    /// The sink has it: a receipt covers it.
    Delivered,
    /// It was given up.
    Disowned,
    /// It is in doubt; ask again when more is known.
    Wait,
    /// A receipt ends inside it, which receipts never do: something is wrong with the log.
    Straddles,
}

/// Decides about one block.
pub fn decide(block: &BlockHeader, view: &View<'_>) -> Verdict {
    let given_up =
        |range: &Disowned| block.tenure <= range.tenure && range.first <= block.first && block.first < range.next;
    if view.disowned.iter().any(given_up) {
        Verdict::Disowned
    } else if block.next <= view.delivered {
        Verdict::Delivered
    } else if block.first < view.delivered {
        Verdict::Straddles
    } else if view.acked.is_none_or(|acked| block.next <= acked) {
        Verdict::Deliver
    } else {
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;

    fn block(tenure: u32, first: i64, next: i64) -> BlockHeader {
        let partition = Partition { topic: 1, number: 0 };
        BlockHeader { partition, first, next, leader_epoch: 0, tenure, count: 1, digest: 0, payload_crc: 0 }
    }

    #[test]
    fn every_case_has_its_verdict() {
        let disowned = [Disowned { tenure: 2, first: 20, next: 30, lsn: 7 }];
        let view = View { delivered: 10, acked: Some(25), disowned: &disowned };
        for (block, verdict) in [
            (block(1, 0, 10), Verdict::Delivered),
            (block(1, 5, 15), Verdict::Straddles),
            (block(1, 10, 20), Verdict::Deliver),
            (block(2, 20, 25), Verdict::Disowned),
            (block(1, 25, 30), Verdict::Disowned),
            (block(3, 20, 25), Verdict::Deliver),
            (block(3, 25, 30), Verdict::Wait),
        ] {
            assert_eq!(decide(&block, &view), verdict, "{block:?}");
        }
        let open = View { acked: None, ..view };
        assert_eq!(decide(&block(3, 25, 30), &open), Verdict::Deliver, "without a fence durable is enough");
    }
}
