//! Repositories on a hub that this machine plays.

mod headers;
mod server;
mod transfers;

use std::net::TcpListener;

use super::*;
use crate::files::sha256_hex;
use server::{COMMIT, Hub};

const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A hub, and an empty cache of it.
struct Setting {
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Setting {
    fn of(files: &[(&str, &[u8])]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            hub: Hub::serve(files),
        }
    }

    fn options(&self) -> FetchOptions {
        FetchOptions {
            hub_endpoint: Some(self.hub.address.clone()),
            hub_cache: Some(self.folder.path().join("hub")),
            ..FetchOptions::default()
        }
    }

    fn cache(&self) -> CacheFolder {
        CacheFolder::at(self.folder.path().join("kvprof"))
    }

    fn get(&self, spec: &str) -> Result<ModelFiles> {
        self.get_with(spec, &self.options())
    }

    fn get_with(&self, spec: &str, options: &FetchOptions) -> Result<ModelFiles> {
        resolve_with(spec, &self.cache(), options, &mut quiet())
    }

    fn error(&self, spec: &str) -> String {
        self.get(spec).unwrap_err().to_string()
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--org--repo")
    }
}

/// A port that was free a moment ago refuses connections.
fn nowhere() -> Option<String> {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    Some(format!("http://{}", closed.local_addr().unwrap()))
}

#[test]
fn the_only_weights_and_their_tokenizer() {
    let setting = Setting::of(&[
        ("README.md", b"r"),
        ("toy.gguf", b"weights"),
        ("tokenizer.json", b"{}"),
    ]);
    let found = setting.get("hf:org/repo").unwrap();
    assert_eq!(
        (found.name.as_str(), found.origin.as_str()),
        ("toy", format!("hf:org/repo@{COMMIT}/toy.gguf").as_str())
    );
    assert_eq!(found.sha256, sha256_hex(b"weights"));
    assert_eq!(fs::read(&found.weights).unwrap(), b"weights");
    assert_eq!(
        fs::read(found.tokenizer_json.as_ref().unwrap()).unwrap(),
        b"{}"
    );
    // A named file that is here needs no network, by its branch or by its commit.
    setting.hub.requests();
    assert_eq!(setting.get("hf:org/repo/toy.gguf").unwrap(), found);
    assert_eq!(setting.get(&found.origin).unwrap(), found);
    assert!(setting.hub.requests().is_empty());
    let missing = setting.error("hf:org/repo/other.gguf");
    assert!(
        missing.contains("no such file in the repository; its GGUF files: toy.gguf"),
        "{missing}"
    );
    let readme = setting.error("hf:org/repo/README.md");
    assert!(readme.contains("end in .gguf"), "{readme}");
    for spec in ["hf:org/none", "hf:org/repo@none"] {
        let none = setting.error(spec);
        assert!(none.contains("no such repository, revision"), "{none}");
    }
}

#[test]
fn several_weights_are_listed() {
    let setting = Setting::of(&[("a.gguf", b"1"), ("sub/b.gguf", b"2")]);
    let error = setting.error("hf:org/repo");
    assert!(
        error.contains("hf:org/repo/a.gguf\n  hf:org/repo/sub/b.gguf"),
        "{error}"
    );
    assert_eq!(setting.get("hf:org/repo/sub/b.gguf").unwrap().name, "b");
    let error = setting.error(&format!("hf:org/repo@{COMMIT}"));
    assert!(
        error.contains(&format!("hf:org/repo@{COMMIT}/sub/b.gguf")),
        "{error}"
    );
}

/// Two shards, an index, and a file of weights that the index does not name.
const SHARDED: &[(&str, &[u8])] = &[
    ("config.json", b"{\"c\": 1}"),
    ("tokenizer.json", b"{\"t\": 1}"),
    ("generation_config.json", b"{\"g\": 1}"),
    ("special_tokens_map.json", b"{\"s\": 1}"),
    ("model.safetensors.index.json", INDEX),
    ("model-1-of-2.safetensors", b"one"),
    ("model-2-of-2.safetensors", b"two"),
    ("consolidated.safetensors", b"both"),
    ("pytorch_model.bin", b"pickle"),
];
const INDEX: &[u8] =
    br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors", "c": "model-1-of-2.safetensors"}}"#;

#[test]
fn safetensors_are_fetched_by_their_index_and_hashed_as_one() {
    let setting = Setting::of(SHARDED);
    let mut lines = Vec::new();
    let mut progress = |line: &str| lines.push(line.to_owned());
    let (cache, options) = (setting.cache(), setting.options());
    let found = resolve_with("hf:org/repo", &cache, &options, &mut progress).unwrap();
    let origin = format!("hf:org/repo@{COMMIT}");
    assert_eq!((found.name.as_str(), &found.origin), ("repo", &origin));
    assert_eq!(
        found.weights,
        setting.repository().join("snapshots").join(COMMIT)
    );
    assert_eq!(
        found.tokenizer_json,
        Some(found.weights.join("tokenizer.json"))
    );
    assert!(
        lines.contains(&"downloading shard 2 of 2: model-2-of-2.safetensors (0.0 MB)".to_owned()),
        "{lines:?}"
    );
    for (name, content) in SHARDED {
        let file = fs::read(found.weights.join(name));
        let is_left_out = ["consolidated.safetensors", "pytorch_model.bin"].contains(name);
        assert_eq!(
            file.ok().as_deref(),
            (!is_left_out).then_some(*content),
            "{name}"
        );
    }
    let defines = |name: &&str| {
        ![
            "special_tokens_map.json",
            "consolidated.safetensors",
            "pytorch_model.bin",
        ]
        .contains(name)
    };
    let mut sums: Vec<String> = (SHARDED.iter())
        .filter(|(name, _)| defines(name))
        .map(|(name, content)| format!("{}  {name}\n", sha256_hex(content)))
        .collect();
    sums.sort();
    assert_eq!(sums.len(), 6);
    assert_eq!(found.sha256, sha256_hex(sums.concat().as_bytes()));

    // A commit that is here whole needs no network; a branch may have moved on.
    setting.hub.requests();
    assert_eq!(setting.get(&origin).unwrap(), found);
    assert!(setting.hub.requests().is_empty());
    assert_eq!(setting.get("hf:org/repo").unwrap(), found);
    assert_eq!(setting.hub.requests().len(), 1);
    // The same files in a folder of one's own are the same model; others beside them are not part of it.
    let folder = setting.folder.path().join("own");
    fs::create_dir(&folder).unwrap();
    for (name, content) in SHARDED {
        fs::write(folder.join(name), content).unwrap();
    }
    let own = setting.get(folder.to_str().unwrap()).unwrap();
    assert_eq!((own.name.as_str(), &own.sha256), ("own", &found.sha256));
    assert_eq!(
        (&own.weights, own.tokenizer_json.is_some()),
        (&folder, true)
    );
    fs::write(folder.join("config.json"), "{}").unwrap();
    assert_ne!(
        setting.get(folder.to_str().unwrap()).unwrap().sha256,
        found.sha256
    );
}

#[test]
fn what_is_no_model_is_said() {
    let config: (&str, &[u8]) = ("config.json", b"{}");
    for (files, expected) in [
        (
            vec![("x.md", &b"1"[..])],
            "no .gguf file and no .safetensors file",
        ),
        (
            vec![config, ("pytorch_model.bin", b"1")],
            "pytorch_model.bin of hf:org/repo",
        ),
        (vec![("model.safetensors", b"1")], "no config.json"),
        (
            vec![config, ("a.safetensors", b"1"), ("b.safetensors", b"1")],
            "2 safetensors files and no model.safetensors.index.json that says which belong together: \
             a.safetensors, b.safetensors",
        ),
        (
            vec![
                config,
                ("model.safetensors.index.json", INDEX),
                ("model-1-of-2.safetensors", b"1"),
            ],
            "names the shard model-2-of-2.safetensors, which is not there",
        ),
        (
            vec![
                config,
                (
                    "model.safetensors.index.json",
                    b"{\"weight_map\": {\"a\": \"../x.safetensors\"}}",
                ),
            ],
            "names '../x.safetensors'",
        ),
        (
            vec![config, ("model.safetensors.index.json", b"[]")],
            "not an index",
        ),
    ] {
        let error = Setting::of(&files).error("hf:org/repo");
        assert!(error.contains(expected), "{error}");
    }
    let single = Setting::of(&[config, ("model.fp16.safetensors", b"1")]);
    let found = single.get("hf:org/repo").unwrap();
    assert!(found.weights.join("model.fp16.safetensors").is_file());
    assert_eq!(found.tokenizer_json, None);
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let setting = Setting::of(&[("toy.gguf", b"new")]);
    setting
        .hub
        .publish("refs/pr/1", OTHER_COMMIT, &[("toy.gguf", b"old")]);
    for (spec, commit, content) in [
        ("hf:org/repo", COMMIT, &b"new"[..]),
        ("hf:org/repo@main", COMMIT, b"new"),
        ("hf:org/repo@refs%2Fpr%2F1", OTHER_COMMIT, b"old"),
        ("hf:org/repo@refs%2Fpr%2F1/toy.gguf", OTHER_COMMIT, b"old"),
        (&format!("hf:org/repo@{OTHER_COMMIT}"), OTHER_COMMIT, b"old"),
    ] {
        let found = setting.get(spec).unwrap();
        assert_eq!(found.origin, format!("hf:org/repo@{commit}/toy.gguf"));
        assert_eq!(fs::read(found.weights).unwrap(), content, "{spec}");
    }
    let noted = setting.repository().join("refs/refs/pr/1");
    assert_eq!(fs::read_to_string(noted).unwrap(), OTHER_COMMIT);
}

#[test]
fn the_cache_stands_in_for_a_hub_that_is_silent_or_must_not_be_asked() {
    let setting = Setting::of(SHARDED);
    let offline = FetchOptions {
        offline: true,
        ..setting.options()
    };
    let silent = FetchOptions {
        hub_endpoint: nowhere(),
        ..setting.options()
    };
    let without = |options: &FetchOptions| setting.get_with("hf:org/repo", options);
    let error = without(&offline).unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    let error = without(&silent).unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
    assert!(setting.hub.requests().is_empty());

    let found = setting.get("hf:org/repo").unwrap();
    setting.hub.requests();
    assert_eq!(without(&offline).unwrap(), found);
    assert!(setting.hub.requests().is_empty());
    let mut lines = Vec::new();
    let mut progress = |line: &str| lines.push(line.to_owned());
    let kept = resolve_with("hf:org/repo", &setting.cache(), &silent, &mut progress);
    assert_eq!(kept.unwrap(), found);
    assert!(
        lines[1].contains("its cache holds hf:org/repo@0123"),
        "{lines:?}"
    );
    assert!(setting.get_with("hf:org/repo@v2", &offline).is_err());

    fs::remove_file(found.weights.join("model-2-of-2.safetensors")).unwrap();
    let error = without(&offline).unwrap_err().to_string();
    assert!(
        error.contains("the shard model-2-of-2.safetensors"),
        "{error}"
    );
    // What is not whole is asked for again, even where the commit is named.
    assert_eq!(setting.get(&found.origin).unwrap(), found);
}

#[test]
fn names_and_tags_that_would_leave_the_cache_are_refused() {
    for name in [
        "../../evil.gguf",
        "/evil.gguf",
        "a/../../evil.gguf",
        "a b.gguf",
        "-x.gguf",
    ] {
        let setting = Setting::of(&[]);
        setting.hub.rumour(name);
        let error = setting.error("hf:org/repo");
        assert!(error.contains("must stay below the repository"), "{error}");
        assert!(setting.hub.requests().len() == 1);
    }
    let setting = Setting::of(&[("toy.gguf", b"weights")]);
    setting.hub.tag("toy.gguf", "../../../evil");
    setting
        .hub
        .publish("main", COMMIT, &[("config.json", b"{}")]);
    setting.get("hf:org/repo").unwrap();
    // The content host's own tag names the blob instead.
    let names: Vec<_> = fs::read_dir(setting.repository().join("blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.contains(&"of-the-content-host".to_owned()),
        "{names:?}"
    );
    assert!(!setting.folder.path().join("evil").exists());
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_of_the_cache_are_refused() {
    use std::os::unix::fs::symlink;
    let setting = Setting::of(&[("toy.gguf", b"weights"), ("sub/toy.gguf", b"weights")]);
    let outside = setting.folder.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret.gguf"), "GGUF").unwrap();
    let snapshot = setting.repository().join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    symlink(outside.join("secret.gguf"), snapshot.join("toy.gguf")).unwrap();
    symlink(&outside, snapshot.join("sub")).unwrap();
    for file in ["toy.gguf", "sub/toy.gguf"] {
        let error = setting.error(&format!("hf:org/repo/{file}"));
        assert!(
            error.contains("leads out of the repository's folder"),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    let offline = FetchOptions {
        offline: true,
        ..setting.options()
    };
    let spec = format!("hf:org/repo@{COMMIT}");
    let error = setting.get_with(&spec, &offline).unwrap_err().to_string();
    assert!(error.contains("leads out"), "{error}");
}
