//! Files that a verb writes: refused before anything is computed, and not lost to a mistyped name.

use std::path::Path;

use anyhow::Context;

/// Refuses what cannot become a file: a folder, a device or pipe, a place below a file, a folder that lets nobody
/// write.
pub fn check_writable(path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        path.file_name().is_some() && !path.is_dir(),
        "--out {} is a folder, a file is needed",
        path.display()
    );
    refuse_devices(path)?;
    let mut folder = path.parent().unwrap_or(Path::new(""));
    while !folder.as_os_str().is_empty() && !folder.exists() {
        folder = folder.parent().unwrap_or(Path::new(""));
    }
    if folder.as_os_str().is_empty() {
        folder = Path::new(".");
    }
    anyhow::ensure!(
        folder.is_dir(),
        "--out {} cannot be written: {} is no folder",
        path.display(),
        folder.display()
    );
    tempfile::tempfile_in(folder)
        .map(|_| ())
        .with_context(|| format!("--out {} cannot be written", path.display()))
}

/// Refuses a name that belongs to a device or pipe.
pub fn refuse_devices(path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        path.is_file() || path.is_dir() || !path.exists(),
        "--out {} is a device or pipe, only regular files are written",
        path.display()
    );
    Ok(())
}

/// Refuses to replace an existing file, unless forced or `same` finds that it holds what will be written.
pub fn refuse_to_overwrite(
    path: &Path,
    force: bool,
    same: impl FnOnce() -> bool,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        force || !path.is_file() || same(),
        "{} exists and holds other content than this would write; choose another --out, or overwrite it with --force",
        path.display()
    );
    Ok(())
}

/// Refuses an existing file before anything is computed, unless forced: for what takes long to make.
pub fn refuse_existing(path: &Path, force: bool) -> anyhow::Result<()> {
    check_writable(path)?;
    anyhow::ensure!(
        force || !path.exists(),
        "{} exists; choose another --out, or overwrite it with --force",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_for_a_file_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(check_writable(&file).is_ok());
        assert!(check_writable(&folder.path().join("new/deep/plan.json")).is_ok());
        assert!(
            !folder.path().join("new").exists(),
            "looking leaves nothing"
        );
        assert!(check_writable(Path::new("plan.json")).is_ok());
        for bad in [
            folder.path(),
            &file.join("plan.json"),
            Path::new(""),
            Path::new("/"),
            #[cfg(unix)]
            Path::new("/dev/null"),
        ] {
            assert!(check_writable(bad).is_err(), "{}", bad.display());
        }
        assert!(refuse_to_overwrite(&file, false, || false).is_err());
        assert!(refuse_to_overwrite(&file, true, || false).is_ok());
        assert!(refuse_to_overwrite(&file, false, || true).is_ok());
    }
}
