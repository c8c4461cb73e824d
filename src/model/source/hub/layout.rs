//! The hub's cache on disk: `models--org--repo` with `refs`, `snapshots`, `blobs` and `.no_exist`, shared with the hub's
//! other clients.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo};

use crate::error::{Error, Result};
use crate::files;
use crate::model::source::spec::HubFile;

/// What the cache holds of one repository.
pub(super) struct CachedRepo {
    folder: PathBuf,
}

/// Folders inside folders of a snapshot, at most.
const DEPTH: usize = 4;

impl CachedRepo {
    pub(super) fn of(cache: &Cache, spec: &HubFile) -> Self {
        let name = Repo::model(spec.repo.clone()).folder_name();
        Self {
            folder: cache.path().join(name),
        }
    }

    /// The commit that a revision stands for, as far as the cache knows.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let reference = File::open(self.folder.join("refs").join(revision)).ok()?;
        let mut text = String::new();
        reference.take(1000).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|text| is_commit(text))
    }

    /// Notes what a revision stands for.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn note_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        self.make_folder_of(&path)?;
        files::replace_with(&path, commit.as_bytes())
    }

    /// The folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// A file of a commit, if it is here.
    ///
    /// Errors: [`Error::Invalid`] for a link that leads out of the repository's folder.
    pub(super) fn file(&self, commit: &str, name: &str) -> Result<Option<PathBuf>> {
        let path = self.snapshot(commit).join(name);
        match path.canonicalize() {
            Ok(real) => {
                self.refuse_outside(&real, &path)?;
                Ok(real.is_file().then_some(path))
            }
            Err(_) => Ok(None),
        }
    }

    /// The names of a commit's files that are here, with `/`.
    pub(super) fn names(&self, commit: &str) -> Vec<String> {
        let mut names = Vec::new();
        list(&self.snapshot(commit), "", DEPTH, &mut names);
        names.sort();
        names
    }

    /// Whether it is known that a commit has no file of this name.
    pub(super) fn is_absent(&self, commit: &str, name: &str) -> bool {
        self.absence(commit, name).is_file()
    }

    /// Notes that a commit has no file of this name.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn note_absent(&self, commit: &str, name: &str) -> Result<()> {
        let path = self.absence(commit, name);
        self.make_folder_of(&path)?;
        File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(())
    }

    fn absence(&self, commit: &str, name: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(name)
    }

    /// Where the content with this tag lies, in a folder that exists.
    ///
    /// Errors: [`Error::Io`], [`Error::Invalid`] for a folder of blobs elsewhere.
    pub(super) fn blob(&self, etag: &str) -> Result<PathBuf> {
        let path = self.folder.join("blobs").join(etag);
        self.make_folder_of(&path)?;
        Ok(path)
    }

    /// Lets a commit's file point to a blob.
    ///
    /// Errors: [`Error::Io`], [`Error::Invalid`] for a folder that is a link to somewhere else.
    pub(super) fn point(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
        let pointer = self.snapshot(commit).join(name);
        self.make_folder_of(&pointer)?;
        match fs::remove_file(&pointer) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("replace", &pointer, e));
            }
            _ => {}
        }
        let up = "../".repeat(name.matches('/').count() + 2);
        link(
            &PathBuf::from(format!("{up}blobs/{etag}")),
            &self.blob(etag)?,
            &pointer,
        )
        .map_err(|e| Error::io("create", &pointer, e))?;
        Ok(pointer)
    }

    /// Makes the folder in which `path` is to lie, unless a link would lead it out of the repository's folder.
    fn make_folder_of(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(|e| Error::io("create", &self.folder, e))?;
        let parent = path.parent().unwrap_or(&self.folder);
        if let Some(real) = parent.ancestors().find_map(|path| path.canonicalize().ok()) {
            self.refuse_outside(&real, parent)?;
        }
        fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))
    }

    fn refuse_outside(&self, real: &Path, path: &Path) -> Result<()> {
        let folder = self.folder.canonicalize();
        let folder = folder.map_err(|e| Error::io("resolve", &self.folder, e))?;
        if real.starts_with(&folder) {
            return Ok(());
        }
        let (path, real) = (path.display().to_string(), real.display());
        Err(Error::invalid(
            "the hub's cache",
            path,
            format!("this leads out of the repository's folder, to {real}; remove the link"),
        ))
    }
}

/// Whether this is the name of a commit, not of a branch or a tag.
pub(super) fn is_commit(revision: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    revision.len() == 40 && revision.bytes().all(is_digit)
}

fn list(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            // A folder that is a link is left alone.
            Ok(kind) if kind.is_dir() => {
                if depth > 0 {
                    list(&entry.path(), &format!("{name}/"), depth - 1, names);
                }
            }
            Ok(_) => names.push(name),
            Err(_) => {}
        }
    }
}

#[cfg(unix)]
fn link(relative: &Path, _blob: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, pointer)
}

/// Links need a privilege on Windows; without it the blob itself is moved, as the hub's other clients do.
#[cfg(windows)]
fn link(relative: &Path, blob: &Path, pointer: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(relative, pointer).or_else(|_| fs::rename(blob, pointer))
}
