//! Files of a hub that this machine plays.

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
