//! Files that are in use: what counts as a change, and what is remembered of their hashes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;

/// What begins like a GGUF file, and a cache that remembers small files.
struct Stage {
    folder: tempfile::TempDir,
    cache: CacheFolder,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFolder::at(folder.path().join("cache")).remembering_from(0);
        let stage = Self { folder, cache };
        fs::write(stage.file(), "GGUF as it was").unwrap();
        stage
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("m.gguf")
    }

    fn find(&self, cache: &CacheFolder) -> Result<ModelFiles> {
        resolve(self.file().to_str().unwrap(), cache, &mut quiet())
    }

    /// The only record of a hash.
    fn record(&self) -> PathBuf {
        let mut records = fs::read_dir(self.cache.path().join("hashes")).unwrap();
        let record = records.next().unwrap().unwrap().path();
        assert!(records.next().is_none());
        record
    }
}

fn set_modified(file: &Path, time: SystemTime) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(time).unwrap();
}

fn modified(file: &Path) -> SystemTime {
    fs::metadata(file).unwrap().modified().unwrap()
}

#[test]
fn other_lengths_times_and_lost_files_are_changes() {
    let stage = Stage::new();
    let (file, in_use) = (stage.file(), stage.find(&stage.cache).unwrap().in_use);
    in_use.check().unwrap();
    let said = || in_use.check().unwrap_err().to_string();
    let time = modified(&file);
    set_modified(&file, time + Duration::from_secs(1));
    assert!(
        said().contains("changed while it was read: it was written to"),
        "{}",
        said()
    );
    fs::write(&file, "GGUF").unwrap();
    assert!(said().contains("it had 14 bytes and has 4"), "{}", said());
    fs::remove_file(&file).unwrap();
    assert!(said().contains("no longer there"), "{}", said());
}

#[cfg(unix)]
#[test]
fn new_names_and_rights_are_no_changes_but_forged_times_are() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new();
    let (file, in_use) = (stage.file(), stage.find(&stage.cache).unwrap().in_use);
    let time = modified(&file);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&file, stage.folder.path().join("another name")).unwrap();
    in_use.check().unwrap();
    // Where nothing is remembered, nothing can decide.
    let alone = FilesInUse::now([file.clone()]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(alone.check().is_err());
    fs::write(&file, "GGUF as it is!").unwrap();
    set_modified(&file, time);
    let said = in_use.check().unwrap_err().to_string();
    assert!(said.contains("another file took its place"), "{said}");
}

#[test]
fn a_hash_is_remembered_until_it_is_verified() {
    let stage = Stage::new();
    let sha256 = stage.find(&stage.cache).unwrap().sha256;
    let lie = || {
        let record = fs::read_to_string(stage.record()).unwrap();
        fs::write(stage.record(), record.replace(&sha256, &"0".repeat(64))).unwrap();
    };
    lie();
    assert_eq!(stage.find(&stage.cache).unwrap().sha256, "0".repeat(64));
    let verifying = stage.cache.clone().verifying();
    let said = stage.find(&verifying).unwrap_err().to_string();
    assert!(
        said.contains("changed unseen") && said.contains(&sha256) && said.contains("0000"),
        "{said}"
    );
    // What was found is remembered, and agrees from now on.
    assert_eq!(stage.find(&stage.cache).unwrap().sha256, sha256);
    assert_eq!(stage.find(&verifying).unwrap().sha256, sha256);
    // Another content under another time is another file, not a damaged one.
    lie();
    fs::write(stage.file(), "GGUF, and more").unwrap();
    set_modified(&stage.file(), SystemTime::UNIX_EPOCH);
    assert_ne!(stage.find(&verifying).unwrap().sha256, sha256);
}

#[cfg(unix)]
#[test]
fn a_record_without_inode_is_paid_for_once() {
    let stage = Stage::new();
    let sha256 = stage.find(&stage.cache).unwrap().sha256;
    let text = fs::read_to_string(stage.record()).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fields = record.as_object_mut().unwrap();
    assert!(fields.remove("inode").is_some() && fields.remove("changed_ns").is_some());
    fields.insert("sha256".into(), "0".repeat(64).into());
    fs::write(stage.record(), record.to_string()).unwrap();
    assert_eq!(stage.find(&stage.cache).unwrap().sha256, sha256);
    assert_eq!(fs::read_to_string(stage.record()).unwrap(), text);
}

#[test]
fn a_folder_is_in_use_by_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::write(file(name), "{}").unwrap();
    }
    let cache = CacheFolder::at(folder.path().join("cache"));
    let path = folder.path().to_str().unwrap();
    let in_use = resolve(path, &cache, &mut quiet()).unwrap().in_use;
    fs::write(file("tokenizer.json"), "{ }").unwrap();
    in_use.check().unwrap();
    fs::write(file("model.safetensors"), "{ }").unwrap();
    assert!(in_use.check().is_err());
}
