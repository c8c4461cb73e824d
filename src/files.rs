//! Writing files so that a crash, a full disk or a killed process never leaves half of one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Writes `path` through a temporary file beside it, which replaces the target only when complete.
///
/// Errors: [`Error::Io`]; the target is then as it was.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kvprof-").suffix(".partial");
    let temporary = builder
        .tempfile_in(folder)
        .map_err(|e| Error::io("write into", folder, e))?;
    let mut writer = BufWriter::new(temporary.as_file());
    write(&mut writer)
        .and_then(|()| writer.flush())
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(|e| Error::io("write", path, e))?;
    drop(writer);
    make_readable(temporary.as_file()).map_err(|e| Error::io("write", path, e))?;
    temporary
        .persist(path)
        .map_err(|e| Error::io("replace", path, e.error))?;
    Ok(())
}

/// Temporary files are private to the user; results are as readable as any other file.
fn make_readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
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

/// Whether a file name is that of a write that never ended.
pub fn is_partial(name: &str) -> bool {
    name.starts_with(".kvprof-") && name.ends_with(".partial")
}
