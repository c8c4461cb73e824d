//! What tells, without reading a file, that it is still what it was.

use std::fs::{self, Metadata};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Length, times and place of a file on its disk.
///
/// Differs: the number of the device is not among them, which many systems give out anew at every start. A file whose
/// bytes changed without any of these is not told: a disk that lost bits, or a change by someone who also set the
/// system's clock back.
/// Units: nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::model) struct FileStamp {
    pub(super) bytes: u64,
    /// When the content was last changed; anyone who may write the file can set it.
    modified_ns: u64,
    /// When content, names or rights were last changed, which only the system sets; 0 where it does not tell.
    #[serde(default)]
    changed_ns: u64,
    /// Which file of its disk it is, so that one renamed into its place is another; 0 where the system does not tell.
    #[serde(default)]
    inode: u64,
}

impl FileStamp {
    /// Of the file that `path` leads to now.
    ///
    /// Errors: [`Error::Io`].
    pub(in crate::model) fn of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|e| Error::io("inspect", path, e))?;
        Ok(Self::of_metadata(&found))
    }

    /// Of a file that is open.
    ///
    /// Errors: [`Error::Io`].
    pub(in crate::model) fn of_open(file: &fs::File, path: &Path) -> Result<Self> {
        let found = file.metadata().map_err(|e| Error::io("inspect", path, e))?;
        Ok(Self::of_metadata(&found))
    }

    fn of_metadata(found: &Metadata) -> Self {
        let modified = found.modified().ok();
        let modified_ns = modified
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|time| u64::try_from(time.as_nanos()).ok())
            .unwrap_or(0);
        let (changed_ns, inode) = change_and_inode(found);
        Self {
            bytes: found.len(),
            modified_ns,
            changed_ns,
            inode,
        }
    }

    /// Bytes of the file.
    pub(in crate::model) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether length and time of the content's change are the same, as after a change of rights or a new name.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        (self.bytes, self.modified_ns) == (other.bytes, other.modified_ns)
    }
}

#[cfg(unix)]
fn change_and_inode(found: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let nanoseconds = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
    (u64::try_from(nanoseconds).unwrap_or(0), found.ino())
}

#[cfg(not(unix))]
fn change_and_inode(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// The error for a file that did not stay as it was while it was in use.
pub(super) fn changed(path: &Path, how: &str) -> Error {
    let problem = format!(
        "changed while it was read: {how}; nothing was kept of what was computed from it. Leave the weights alone while \
         they are used, and run again"
    );
    Error::format(path, problem)
}
