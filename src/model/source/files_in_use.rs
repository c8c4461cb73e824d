//! The weight files that a model is read from, and whether they are still what they were.

use std::path::PathBuf;

use super::cache::CacheFolder;
use super::stamp::{FileStamp, changed};
use crate::error::{Error, Result};

/// The weight files of a model as they were when they were hashed or opened.
///
/// Paper: none: house definition. Differs: weights are read from mapped files as long as they are used, so what another
/// process writes into them changes numbers without a word; [`FilesInUse::check`] before results are kept says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesInUse {
    files: Vec<FileInUse>,
    /// What is remembered of them is here; without it everything is paid for each time.
    cache: Option<CacheFolder>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileInUse {
    path: PathBuf,
    stamp: FileStamp,
    /// Empty where it was not hashed.
    sha256: String,
}

impl FilesInUse {
    /// Files as they are now, of which nothing is remembered.
    ///
    /// Errors: [`Error::Io`].
    pub fn now(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        let unhashed = paths.into_iter().map(|path| (path, String::new()));
        Ok(Self {
            files: stamped(unhashed)?,
            cache: None,
        })
    }

    /// Files that have just been hashed.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn hashed(
        files: impl IntoIterator<Item = (PathBuf, String)>,
        cache: &CacheFolder,
    ) -> Result<Self> {
        Ok(Self {
            files: stamped(files)?,
            cache: Some(cache.clone()),
        })
    }

    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Where it is remembered what was once found out about them.
    pub(in crate::model) fn cache(&self) -> Option<&CacheFolder> {
        self.cache.as_ref()
    }

    /// Refuses files that are no longer what they were.
    ///
    /// Differs: where only names or rights may have changed, the hash decides, and is remembered.
    /// Errors: [`Error::Format`] for a file that was changed, cut short, replaced or removed; [`Error::Io`].
    pub fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| self.check_one(file))
    }

    fn check_one(&self, file: &FileInUse) -> Result<()> {
        let (path, then) = (&file.path, &file.stamp);
        let Ok(now) = FileStamp::of(path) else {
            return Err(changed(path, "it is no longer there"));
        };
        if now == *then {
            return Ok(());
        }
        if now.bytes != then.bytes {
            let sizes = format!("it had {} bytes and has {}", then.bytes, now.bytes);
            return Err(changed(path, &sizes));
        }
        if now.has_content_of(then)
            && let Some(cache) = &self.cache
        {
            // Once: another check finds it remembered, even where the cache verifies.
            let remembered = cache.remembered(path);
            if remembered.map_or_else(|| cache.sha256_of(path), Ok)? == file.sha256 {
                return Ok(());
            }
        }
        Err(changed(
            path,
            "it was written to, or another file took its place",
        ))
    }

    /// Refuses what hashes to something else than was remembered of the same files, in their order.
    ///
    /// Errors: [`Error::Format`].
    pub(super) fn refuse_other_hashes(&self, remembered: &[Option<String>]) -> Result<()> {
        for (file, before) in self.files.iter().zip(remembered) {
            if let Some(before) = before.as_ref().filter(|before| **before != file.sha256) {
                let problem = format!(
                    "is damaged or was changed unseen: its SHA-256 is {}, but was {before} while length and times are \
                     those of then; put the right file in its place, or run again to take it as it is",
                    file.sha256
                );
                return Err(Error::format(&file.path, problem));
            }
        }
        Ok(())
    }
}

fn stamped(files: impl IntoIterator<Item = (PathBuf, String)>) -> Result<Vec<FileInUse>> {
    let stamped = files.into_iter().map(|(path, sha256)| {
        Ok(FileInUse {
            stamp: FileStamp::of(&path)?,
            path,
            sha256,
        })
    });
    stamped.collect()
}
