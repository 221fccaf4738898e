//! What is under a directory: the kind of file system, and the device if it is one.
//!
//! Promises: nothing here writes or blocks on the medium. Never: a fact the system does not tell is `None`, not an error
//! and not a guess, because these facts are for people.

use super::IoError;
use rustix::fs::{major, minor, stat, statfs};
use std::path::Path;

/// Numbers by which `statfs` names file systems (linux/magic.h), and whether they keep anything over a power cut.
const KINDS: [(u64, &str, bool); 16] = [
    (0xef53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683e, "btrfs", true),
    (0x2fc1_2fc1, "zfs", true),
    (0xca45_1a4e, "bcachefs", true),
    (0xf2f5_2010, "f2fs", true),
    (0x794c_7630, "overlay", true),
    (0x6969, "nfs", true),
    (0xff53_4d42, "cifs", true),
    (0xfe53_4d42, "smb2", true),
    (0x6573_5546, "fuse", true),
    (0x0102_1997, "9p", true),
    (0x6a65_6a63, "virtiofs", true),
    (0x4d44, "vfat", true),
    (0x0102_1994, "tmpfs", false),
    (0x8584_58f6, "ramfs", false),
];

/// What is under a directory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Volume {
    /// Name of the kind of file system, or its number in hexadecimal.
    pub file_system: String,
    /// False when it keeps everything in memory.
    pub keeps: bool,
    /// Name of the block device, as in `/sys/class/block`.
    pub device: Option<String>,
    /// True for a disk with moving parts; virtual ones often only say so.
    pub rotational: Option<bool>,
    /// What the kernel takes the device's cache for: `write back` (it flushes) or `write through` (it does not).
    pub cache: Option<String>,
}

impl Volume {
    /// Looks at what holds `dir`, which must exist.
    pub fn of(dir: &Path) -> Result<Self, IoError> {
        let failed = |e: rustix::io::Errno| IoError::new("look at the file system of", dir, e);
        let (file_system, keeps) = kind(statfs(dir).map_err(failed)?.f_type as u64);
        let number = stat(dir).map_err(failed)?.st_dev;
        let node = format!("/sys/dev/block/{}:{}", major(number), minor(number));
        let target = std::fs::read_link(&node).ok();
        let device = target.and_then(|path| Some(path.file_name()?.to_str()?.to_string()));
        // A partition has its queue in the whole disk's directory, the one above.
        let queue = |name: &str| {
            let own = std::fs::read_to_string(format!("{node}/queue/{name}"));
            let text = own.or_else(|_| std::fs::read_to_string(format!("{node}/../queue/{name}"))).ok()?;
            Some(text.trim().to_string())
        };
        let rotational = queue("rotational").map(|text| text == "1");
        Ok(Self { file_system, keeps, device, rotational, cache: queue("write_cache") })
    }

    /// True when the device is memory that survives power cuts, where a sync may be faster than any wire.
    pub fn is_persistent_memory(&self) -> bool {
        self.device.as_deref().is_some_and(|device| device.starts_with("pmem"))
    }
}

fn kind(magic: u64) -> (String, bool) {
    let known = KINDS.iter().find(|(number, ..)| *number == magic & 0xffff_ffff);
    known.map_or_else(|| (format!("{magic:#x}"), true), |(_, name, keeps)| ((*name).to_string(), *keeps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_and_memory_is_told_apart() {
        assert_eq!(kind(0xef53), ("ext4".to_string(), true));
        assert_eq!(kind(0x0102_1994), ("tmpfs".to_string(), false));
        // Sign-extended, as on systems where the number is a signed word.
        assert_eq!(kind(0xffff_ffff_9123_683e), ("btrfs".to_string(), true));
        assert_eq!(kind(0x1234), ("0x1234".to_string(), true));
    }

    #[test]
    fn the_file_system_of_a_folder_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::of(dir.path()).unwrap();
        assert!(!volume.file_system.is_empty());
        assert!(Volume::of(&dir.path().join("missing")).is_err());
    }
}
