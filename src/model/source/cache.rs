//! The cache folder, and hashes that are computed once.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stamp::{FileStamp, changed};
use crate::error::{Error, Result};
use crate::files;

/// Where fetched models are kept, as `models/<package>-<version>/<file>`, and what was once found out about large files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFolder {
    root: PathBuf,
    /// Whether what is remembered must be found out anew.
    verifies: bool,
    /// Bytes of the smallest file of which anything is remembered.
    least: u64,
}

impl CacheFolder {
    /// `$KVPROF_CACHE`, or `kvprof` in the user's cache folder.
    ///
    /// Errors: [`Error::Invalid`] if there is neither.
    pub fn from_env() -> Result<Self> {
        let root = match std::env::var_os("KVPROF_CACHE") {
            Some(root) if !root.is_empty() => Some(PathBuf::from(root)),
            _ => dirs::cache_dir().map(|folder| folder.join("kvprof")),
        };
        root.map(Self::at).ok_or_else(|| {
            let bound = "this system has no cache folder; set it to a folder";
            Error::invalid("KVPROF_CACHE", "not set", bound)
        })
    }

    /// A cache in `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            verifies: false,
            least: LARGE,
        }
    }

    /// The same folder, but files are hashed and looked through for NaN whatever is remembered of them, and what is
    /// found takes the place of that.
    pub fn verifying(self) -> Self {
        Self {
            verifies: true,
            ..self
        }
    }

    /// Whether what is remembered is found out anew.
    pub(in crate::model) fn verifies(&self) -> bool {
        self.verifies
    }

    /// The same folder, for files from so many bytes on.
    #[cfg(test)]
    pub(in crate::model) fn remembering_from(self, least: u64) -> Self {
        Self { least, ..self }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The folder of one package; all spellings of its name share it.
    pub(super) fn package(&self, package: &str, version: &str) -> PathBuf {
        let name = package.to_lowercase().replace(['.', '_'], "-");
        self.root.join("models").join(format!("{name}-{version}"))
    }

    /// The SHA-256 of a file anywhere; that of a large one is remembered here while its [`FileStamp`] stays.
    ///
    /// Errors: as [`sha256_of_file`].
    pub(super) fn sha256_of(&self, file: &Path) -> Result<String> {
        let sha256 = if self.verifies {
            hash(file)?
        } else if let Some(sha256) = self.remembered(file) {
            return Ok(sha256);
        } else {
            sha256_of_file(file)?
        };
        self.remember(file, &sha256);
        Ok(sha256)
    }

    /// Whether the hash of a file is to be had without reading a large one.
    pub(super) fn knows(&self, file: &Path) -> bool {
        let is_small = || fs::metadata(file).is_ok_and(|found| found.len() < self.least);
        is_small() || self.remembered(file).is_some() || Record::of_now(file).is_some()
    }

    /// The hash that is remembered of a file that has not changed since.
    pub(super) fn remembered(&self, file: &Path) -> Option<String> {
        let bytes = fs::metadata(file).ok()?.len();
        let (real, place) = self.memory_of("hashes", file, bytes)?;
        let record = Record::read_at(&place)?;
        let now = Record::describe(&real, &record.origin, &record.sha256).ok()?;
        let is_of_file = record.origin == real.to_string_lossy();
        (is_of_file && now == record).then_some(record.sha256)
    }

    /// Remembers the hash of a large file; others are hashed in no time.
    pub(super) fn remember(&self, file: &Path, sha256: &str) {
        let record = fs::metadata(file).ok().and_then(|found| {
            let (real, place) = self.memory_of("hashes", file, found.len())?;
            let record = Record::describe(&real, &real.to_string_lossy(), sha256).ok()?;
            Some((place, record))
        });
        // It only saves time, so a cache that cannot be written to still works.
        if let Some((path, record)) = record {
            let _ = record.write_at(&path);
        }
    }

    /// The path of a file without links, and where something is remembered of it; `None` for small files, of which
    /// everything is found out in no time.
    pub(in crate::model) fn memory_of(
        &self,
        what: &str,
        file: &Path,
        bytes: u64,
    ) -> Option<(PathBuf, PathBuf)> {
        if bytes < self.least {
            return None;
        }
        let real = file.canonicalize().ok()?;
        let name = files::sha256_hex(real.as_os_str().as_encoded_bytes());
        let record = self.root.join(what).join(format!("{name}.json"));
        Some((real, record))
    }
}

/// Something is remembered of files from this size on: 64 MiB.
const LARGE: u64 = 64 << 20;

/// What is known of a fetched file, so that it is hashed once and not at every start.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Record {
    /// The spec that it was fetched for.
    origin: String,
    sha256: String,
    #[serde(flatten)]
    stamp: FileStamp,
}

impl Record {
    fn path(file: &Path) -> PathBuf {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".sha256.json");
        file.with_file_name(name)
    }

    /// The record beside `file`, if there is one that can be read.
    fn read(file: &Path) -> Option<Self> {
        Self::read_at(&Self::path(file))
    }

    fn read_at(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// The record beside `file`, if the file is still that of then.
    fn of_now(file: &Path) -> Option<Self> {
        let record = Self::read(file)?;
        let now = Self::describe(file, &record.origin, &record.sha256).ok()?;
        (now == record).then_some(record)
    }

    /// A record of `file` as it is now.
    fn describe(file: &Path, origin: &str, sha256: &str) -> Result<Self> {
        Ok(Self {
            origin: origin.to_owned(),
            sha256: sha256.to_owned(),
            stamp: FileStamp::of(file)?,
        })
    }

    fn write(&self, file: &Path) -> Result<()> {
        self.write_at(&Self::path(file))
    }

    fn write_at(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::io("write", path, io::Error::other(e)))?;
        files::replace_with(path, &json)
    }
}

/// The SHA-256 of a file in hexadecimal, from the record beside it while its [`FileStamp`] agrees.
///
/// Only files that were fetched from a wheel have a record; others are hashed each time.
/// Errors: [`Error::Io`]; [`Error::Format`] for a file that changes while it is read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let Some(record) = Record::read(path) else {
        return hash(path);
    };
    let now = Record::describe(path, &record.origin, &record.sha256)?;
    if now == record {
        return Ok(record.sha256);
    }
    let sha256 = hash(path)?;
    // A record of other content stays: it tells that the file is no longer what was fetched.
    if sha256 == record.sha256 {
        // It only saves time, so a cache that cannot be written to still works.
        let _ = now.write(path);
    }
    Ok(sha256)
}

fn hash(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let before = FileStamp::of_open(&file, path)?;
    let sha256 = hash_of(&file, path)?;
    if !FileStamp::of_open(&file, path)?.has_content_of(&before) {
        return Err(changed(path, "it was written to while it was hashed"));
    }
    Ok(sha256)
}

/// The SHA-256 of an open file from where it stands.
pub(super) fn hash_of(file: &File, path: &Path) -> Result<String> {
    let mut sink = HashingWriter::new(io::sink());
    io::copy(&mut BufReader::with_capacity(1 << 20, file), &mut sink)
        .map_err(|e| Error::io("read", path, e))?;
    Ok(sink.finish().1)
}

/// Hashes what passes through on its way to a file.
pub(super) struct HashingWriter<W> {
    inner: W,
    digest: Sha256,
    /// Whether the file, and not what is read for it, is where it failed.
    pub(super) failed: bool,
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            digest: Sha256::new(),
            failed: false,
        }
    }

    /// The writer, and the hash in hexadecimal.
    pub(super) fn finish(self) -> (W, String) {
        let digest = self.digest.finalize();
        let hash = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, hash)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        // An interrupted write is tried again.
        let gone = |e: &io::Error| e.kind() != io::ErrorKind::Interrupted;
        self.failed |= written.as_ref().is_err_and(gone);
        self.digest
            .update(&bytes[..*written.as_ref().unwrap_or(&0)]);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The hash of `file` if it is in the cache, whole and unchanged.
///
/// `expected` is the published hash; without one, that taken when the file was fetched is the reference. `verifies` says
/// to hash it whatever its record says.
pub(super) fn kept(
    file: &Path,
    origin: &str,
    expected: Option<&str>,
    verifies: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<String>> {
    if !file.is_file() {
        return Ok(None);
    }
    let record = Record::read(file);
    if record.as_ref().is_some_and(|r| r.origin != origin) {
        // Another member of the same wheel with the same file name.
        return Ok(None);
    }
    let sha256 = if verifies {
        hash(file)?
    } else {
        sha256_of_file(file)?
    };
    let reference = expected.or(record.as_ref().map(|record| record.sha256.as_str()));
    if reference.is_some_and(|reference| reference != sha256) {
        let file = file.display();
        progress(&format!(
            "{file} is not what was fetched; fetching it again"
        ));
        return Ok(None);
    }
    if record.is_none() || verifies {
        let _ = Record::describe(file, origin, &sha256)?.write(file);
    }
    Ok(Some(sha256))
}

/// Moves a finished download to its place and records its hash.
pub(super) fn keep(download: &Path, file: &Path, origin: &str, sha256: &str) -> Result<()> {
    fs::rename(download, file).map_err(|e| Error::io("write", file, e))?;
    Record::describe(file, origin, sha256)?.write(file)
}

/// The right to fetch into a folder; other processes wait for it.
pub(super) struct FolderLock {
    /// `None` where the file system knows no locks; then renaming alone keeps files whole.
    _file: Option<File>,
}

impl FolderLock {
    /// Waits for the lock, then removes what killed downloads have left.
    pub(super) fn take(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let path = folder.join(".lock");
        let file = File::create(&path).map_err(|e| Error::io("write into", folder, e))?;
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            progress("waiting for another process that is fetching the same model");
        }
        if file.lock().is_err() {
            return Ok(Self { _file: None });
        }
        let entries = fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, e))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(DOWNLOAD) {
                // What cannot be removed now will be another time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { _file: Some(file) })
    }
}

/// How folders of unfinished downloads begin.
pub(super) const DOWNLOAD: &str = ".download-";
