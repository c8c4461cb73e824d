//! One writer of a folder at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// The file inside the folder that is locked while it is written.
pub(super) const LOCK: &str = ".kvprof-lock";

/// A folder that this process alone writes; the system frees it when the process ends, however it does.
#[derive(Debug)]
pub(super) struct WriterLock {
    file: File,
}

impl WriterLock {
    /// Locks `folder`, which is the working folder of `run`.
    ///
    /// Differs: a file system that knows no locks, as some of networks, is written without one.
    /// Errors: [`Error::OutputExists`] while another process writes there; [`Error::Io`].
    pub(super) fn take(folder: &Path, run: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let unlocked = |e| Error::io("lock", &path, e);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(unlocked)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(run, &mut file)),
            Err(TryLockError::Error(e)) if knows_no_locks(&e) => {}
            Err(TryLockError::Error(e)) => return Err(unlocked(e)),
        }
        // Only for the message that another process shows, which does without it. Until this is written, the number may be
        // that of a process that is gone.
        let number = std::process::id().to_string();
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(number.as_bytes()));
        Ok(Self { file })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Closing the file is not enough where another thread is just starting a process, which shares it for a moment.
        let _ = self.file.unlock();
    }
}

/// Whether it is the file system that refuses, not another process.
fn knows_no_locks(problem: &std::io::Error) -> bool {
    #[cfg(unix)]
    if problem.raw_os_error() == Some(libc::ENOLCK) {
        return true;
    }
    problem.kind() == ErrorKind::Unsupported
}

fn taken(run: &Path, file: &mut File) -> Error {
    let mut number = String::new();
    let read = file.take(20).read_to_string(&mut number);
    let number = number.trim().parse::<u32>().ok().filter(|_| read.is_ok());
    let by = number.map_or("another process".to_owned(), |n| format!("process {n}"));
    Error::OutputExists {
        path: run.to_owned(),
        problem: format!(
            "is being written by {by}: wait for it, or choose another folder with --out"
        ),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let take = || WriterLock::take(folder.path(), Path::new("out"));
        let first = take().unwrap();
        let refused = take().unwrap_err().to_string();
        let own = format!("being written by process {}:", std::process::id());
        assert!(
            refused.contains(&own) && refused.starts_with("out"),
            "{refused}"
        );
        drop(first);
        let second = take().unwrap();
        std::fs::write(folder.path().join(LOCK), "no number").unwrap();
        let refused = take().unwrap_err().to_string();
        assert!(refused.contains("by another process:"), "{refused}");
        drop(second);
        take().unwrap();
    }
}
