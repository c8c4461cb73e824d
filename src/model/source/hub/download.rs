//! One file of a commit into the hub's cache: begun parts are gone on with, by any process, and what arrives is checked.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use super::client::{Client, Range, Trouble};
use super::layout::CachedRepo;
use super::{explain, unnamed};
use crate::error::{Error, Result};
use crate::model::source::cache::CacheFolder;
use crate::model::source::spec::HubFile;

/// Tries in a row that bring no byte, before it is given up.
const TRIES: u32 = 3;

/// A repository at one commit, online.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cached: &'a CachedRepo,
    pub(super) spec: &'a HubFile,
    pub(super) commit: &'a str,
    /// Where hashes that were computed on the way are remembered.
    pub(super) hashes: &'a CacheFolder,
}

impl Download<'_> {
    /// Brings a file into the cache, if it is not there.
    ///
    /// `place` is said before the name, as in "shard 2 of 3: ".
    /// Errors: [`Error::Fetch`], [`Error::Io`].
    pub(super) fn file(
        &self,
        name: &str,
        place: &str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<std::path::PathBuf> {
        if let Some(path) = self.cached.file(self.commit, name)? {
            return Ok(path);
        }
        let failed = |trouble| explain(self.spec, trouble);
        let first = self.range(name, (0, Some(0))).map_err(failed)?;
        let etag = first.etag.ok_or_else(|| unnamed(self.spec, name))?;
        let blob = self.cached.blob(&etag)?;
        let _lock = lock(&blob, progress)?;
        let is_whole = fs::metadata(&blob).is_ok_and(|found| found.len() == first.total);
        if !is_whole {
            self.blob(name, &blob, first.total, place, progress)?;
        }
        let path = self.cached.point(self.commit, name, &etag)?;
        if is_sha256(&etag) && !is_whole {
            self.hashes.remember(&path, &etag);
        }
        Ok(path)
    }

    fn range(&self, name: &str, bytes: (u64, Option<u64>)) -> Result<Range, Trouble> {
        self.client.range(&self.spec.repo, self.commit, name, bytes)
    }

    /// Downloads a file's content beside `blob`, which it becomes when it is whole and right.
    fn blob(
        &self,
        name: &str,
        blob: &Path,
        total: u64,
        place: &str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let part = blob.with_added_extension("part");
        let unwritten = |e| Error::io("write", &part, e);
        let mut options = File::options();
        let file = options.create(true).truncate(false).read(true).write(true);
        let mut file = file.open(&part).map_err(unwritten)?;
        let mut have = file.metadata().map_err(unwritten)?.len();
        if have > total {
            file.set_len(0).map_err(unwritten)?;
            have = 0;
        }
        let mut lines = Lines::begin(format!("{place}{name}"), have, total, progress);
        let mut tries = 0;
        while have < total {
            let before = have;
            let more = self.append(name, &mut file, &mut have, total, &mut lines);
            match more.map_err(unwritten)? {
                Ok(()) => {}
                Err(Trouble::Unreachable(_)) if have > before => tries = 1,
                Err(Trouble::Unreachable(_)) if tries + 1 < TRIES => tries += 1,
                Err(trouble) => return Err(explain(self.spec, trouble)),
            }
            if have < total {
                std::thread::sleep(Duration::from_millis(200 << tries));
            }
        }
        file.sync_all().map_err(unwritten)?;
        self.check(name, blob, &part, &mut file)?;
        fs::rename(&part, blob).map_err(|e| Error::io("write", blob, e))
    }

    /// Appends what the hub sends until it breaks off; the outer error is the file's.
    fn append(
        &self,
        name: &str,
        file: &mut File,
        have: &mut u64,
        total: u64,
        lines: &mut Lines,
    ) -> io::Result<Result<(), Trouble>> {
        let mut range = match self.range(name, (*have, None)) {
            Ok(range) => range,
            Err(trouble) => return Ok(Err(trouble)),
        };
        if range.total != total {
            let found = range.total;
            return Ok(Err(Trouble::Unsound(format!(
                "{name} has {total} bytes at one time and {found} at another"
            ))));
        }
        // A hub without ranges begins anew.
        *have = range.start;
        file.set_len(*have)?;
        file.seek(SeekFrom::Start(*have))?;
        let mut buffer = vec![0; 1 << 18];
        while *have < total {
            match range.body.read(&mut buffer) {
                Ok(0) => return Ok(Err(Trouble::Unreachable("it hung up".into()))),
                Ok(read) => {
                    let wanted = usize::try_from(total - *have).unwrap_or(read).min(read);
                    file.write_all(&buffer[..wanted])?;
                    *have += wanted as u64;
                    lines.at(*have);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Ok(Err(Trouble::Unreachable(e.to_string()))),
            }
        }
        Ok(Ok(()))
    }

    /// Large files are named by their SHA-256, which must be theirs.
    fn check(&self, name: &str, blob: &Path, part: &Path, file: &mut File) -> Result<()> {
        let etag = blob.file_name().unwrap_or_default().to_string_lossy();
        if !is_sha256(&etag) {
            return Ok(());
        }
        file.rewind().map_err(|e| Error::io("read", part, e))?;
        let sha256 = crate::model::source::cache::hash_of(file, part)?;
        if sha256 == etag {
            return Ok(());
        }
        fs::remove_file(part).map_err(|e| Error::io("remove", part, e))?;
        Err(Error::Fetch {
            what: self.spec.to_string(),
            problem: format!(
                "the SHA-256 of {name} is {sha256}, but the hub says {etag}; nothing was kept of it: try again"
            ),
        })
    }
}

/// Whether a tag is a SHA-256.
pub(super) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The right to download a blob, which the hub's other clients respect as well.
fn lock(blob: &Path, progress: &mut dyn FnMut(&str)) -> Result<File> {
    let path = blob.with_added_extension("lock");
    let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        progress("waiting for another process that is fetching the same file");
    }
    // Where the file system knows no locks, renaming alone keeps files whole.
    let _ = file.lock();
    Ok(file)
}

/// Reports a download in tenths.
struct Lines<'a> {
    progress: &'a mut dyn FnMut(&str),
    name: String,
    total: u64,
    tenth: u64,
}

impl<'a> Lines<'a> {
    fn begin(name: String, have: u64, total: u64, progress: &'a mut dyn FnMut(&str)) -> Self {
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let kept = if have > 0 {
            format!(", of which {} are here", megabytes(have))
        } else {
            String::new()
        };
        progress(&format!("downloading {name} ({}{kept})", megabytes(total)));
        let tenth = have.saturating_mul(10).checked_div(total).unwrap_or(0);
        Self {
            progress,
            name,
            total,
            tenth,
        }
    }

    fn at(&mut self, have: u64) {
        let tenth = have.saturating_mul(10).checked_div(self.total).unwrap_or(0);
        // Small files are through before a line could be read.
        if tenth > self.tenth && tenth < 10 && self.total > 10_000_000 {
            (self.progress)(&format!("downloading {}: {} %", self.name, tenth * 10));
        }
        self.tenth = tenth;
    }
}
