//! Writing files so that a crash, a full disk or a killed process never leaves half of one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Writes `path` through a temporary file beside it, which replaces the target only when complete.
///
/// A symbolic link keeps pointing where it does; the file that it points to is replaced.
/// Errors: [`Error::Io`], or [`Error::OutputExists`] for a target that is not a regular file; the
/// target is then as it was.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let path = &target_of(path)?;
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kvprof-").suffix(".partial");
    #[cfg(unix)]
    builder.permissions(permissions_for(path));
    let temporary = builder
        .tempfile_in(folder)
        .map_err(|e| Error::io("write into", folder, e))?;
    let mut writer = BufWriter::new(temporary.as_file());
    write(&mut writer)
        .and_then(|()| writer.flush())
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(|e| Error::io("write", path, e))?;
    drop(writer);
    temporary
        .persist(path)
        .map_err(|e| Error::io("replace", path, e.error))?;
    Ok(())
}

/// The file that a write to `path` should replace.
fn target_of(path: &Path) -> Result<PathBuf> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {
            fs::canonicalize(path).map_err(|e| Error::io("resolve", path, e))
        }
        Ok(found) => Err(Error::OutputExists {
            path: path.to_owned(),
            problem: if found.is_dir() {
                "is a folder, a file is to be written there; choose another path".into()
            } else {
                "is a device or pipe, only regular files are written; choose another path".into()
            },
        }),
        Err(_) => Ok(path.to_owned()),
    }
}

/// Those of the file that is replaced, or what the user's umask leaves of read and write for all.
#[cfg(unix)]
fn permissions_for(path: &Path) -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    match fs::metadata(path) {
        Ok(found) => found.permissions(),
        Err(_) => fs::Permissions::from_mode(0o666),
    }
}

/// Writes text or bytes whole; see [`replace`].
///
/// Errors: [`Error::Io`].
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// SHA-256 of `bytes` in lower-case hexadecimal, as `sha256sum` prints it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Removes what writes into a folder have left that never ended; a folder that is not there has nothing.
///
/// Errors: [`Error::Io`].
pub fn remove_partial(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_partial(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(|e| Error::io("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// Whether a file name is that of a write that never ended.
pub fn is_partial(name: &str) -> bool {
    name.starts_with(".kvprof-") && name.ends_with(".partial")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace_with(&path, b"old").unwrap();
        let failing = replace(&path, |_| Err(io::Error::other("no")));
        assert!(failing.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace_with(folder.path(), b"x").is_err(), "a folder");
    }

    #[cfg(unix)]
    #[test]
    fn links_keep_pointing_and_devices_stay_devices() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace_with(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let device = replace_with(Path::new("/dev/null"), b"x").unwrap_err();
        assert!(device.to_string().contains("device"), "{device}");
    }
}
