//! A hub that this machine plays: revisions, listings, ranges, redirections to another host, and cut connections.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::files::sha256_hex;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Default)]
struct State {
    /// Commits by revision.
    revisions: BTreeMap<String, String>,
    /// Files by commit and name.
    files: BTreeMap<(String, String), Vec<u8>>,
    /// What is listed beside the files.
    rumours: Vec<String>,
    /// Tags that are not those of the content.
    tags: BTreeMap<String, String>,
    /// Each request: its path, and what follows `Range: bytes=`.
    requests: Vec<(String, String)>,
    /// Hosts to which the token was sent.
    trusted: Vec<&'static str>,
    /// Bytes of large files that are sent before all connections are cut.
    left: Option<usize>,
    /// Bytes of one answer, at most; longer ones are cut.
    at_once: Option<usize>,
    /// Bytes of large files that were sent.
    sent: usize,
    /// Whether ranges are ignored.
    whole_files: bool,
}

/// One repository, `org/repo`; large files lie on another host.
pub struct Hub {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Serves these files as the newest.
    pub fn serve(files: &[(&str, &[u8])]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let content = listen("content", Arc::clone(&state), String::new());
        let address = listen("hub", Arc::clone(&state), content);
        let hub = Self { address, state };
        hub.publish("main", COMMIT, files);
        hub
    }

    pub fn publish(&self, revision: &str, commit: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state.lock().unwrap();
        for revision in [revision, commit] {
            state.revisions.insert(revision.into(), commit.into());
        }
        for (name, bytes) in files {
            let key = (commit.to_owned(), (*name).to_owned());
            state.files.insert(key, bytes.to_vec());
        }
    }

    /// Lists a name without serving the file.
    pub fn rumour(&self, name: &str) {
        self.state.lock().unwrap().rumours.push(name.into());
    }

    pub fn tag(&self, name: &str, tag: &str) {
        let mut state = self.state.lock().unwrap();
        state.tags.insert(name.into(), tag.into());
    }

    /// Cuts every connection once this many bytes of large files were sent.
    pub fn cut_after(&self, bytes: Option<usize>) {
        self.state.lock().unwrap().left = bytes;
    }

    /// Cuts every answer with a large file at this many bytes.
    pub fn cut_each_at(&self, bytes: usize) {
        self.state.lock().unwrap().at_once = Some(bytes);
    }

    pub fn ignore_ranges(&self) {
        self.state.lock().unwrap().whole_files = true;
    }

    pub fn sent(&self) -> usize {
        self.state.lock().unwrap().sent
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The ranges that were asked for since the last call, of one file on the host of large files.
    pub fn ranges(&self, name: &str) -> Vec<String> {
        let requests = self.requests().into_iter();
        let of_file = requests.filter(|(path, _)| path == &format!("/content/{COMMIT}/{name}"));
        of_file.map(|(_, range)| range).collect()
    }

    pub fn trusted(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().trusted.clone()
    }
}

fn listen(host: &'static str, state: Arc<Mutex<State>>, content: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut state = state.lock().unwrap();
            // Whoever hangs up has what was asked for.
            let _ = answer(stream, host, &mut state, &content);
        }
    });
    address
}

fn answer(
    mut stream: TcpStream,
    host: &'static str,
    state: &mut State,
    content: &str,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?)
        .lines()
        .map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<_> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    let value = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name));
    let range = value("range: bytes=").unwrap_or_default().to_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    state.requests.push((path.clone(), range.clone()));
    if value("authorization: bearer secret").is_some() {
        state.trusted.push(host);
    }
    let close = "Connection: close";
    let (status, head, body) = if let Some(revision) =
        path.strip_prefix("/api/models/org/repo/revision/")
    {
        match state.revisions.get(&revision.replace("%2F", "/")) {
            Some(commit) => ("200 OK", String::new(), listing(state, commit)),
            None => not_found(),
        }
    } else if let Some(rest) = path.strip_prefix("/org/repo/resolve/") {
        let (commit, name) = rest.split_once('/').unwrap_or_default();
        match state.files.get(&(commit.to_owned(), name.to_owned())) {
            Some(bytes) if is_large(name) => {
                let tag = state.tags.get(name).cloned();
                let tag = tag.unwrap_or_else(|| sha256_hex(bytes));
                let head = format!(
                    "X-Linked-ETag: \"{tag}\"\r\nLocation: {content}/content/{commit}/{name}\r\n"
                );
                ("302 Found", head, Vec::new())
            }
            Some(bytes) => {
                let tag = state.tags.get(name).cloned();
                let tag = tag.unwrap_or_else(|| sha256_hex(bytes)[..40].to_owned());
                ranged(bytes, &range, &tag, state.whole_files)
            }
            None => not_found(),
        }
    } else if let Some(rest) = path.strip_prefix("/content/") {
        let (commit, name) = rest.split_once('/').unwrap_or_default();
        match state.files.get(&(commit.to_owned(), name.to_owned())) {
            Some(bytes) => ranged(bytes, &range, "of-the-content-host", state.whole_files),
            None => not_found(),
        }
    } else {
        not_found()
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{close}\r\n{head}Content-Length: {}\r\n\r\n",
        body.len()
    )?;
    let mut sent = body.len();
    if host == "content" {
        sent = sent.min(state.at_once.unwrap_or(sent));
        if let Some(left) = &mut state.left {
            sent = sent.min(*left);
            *left -= sent;
        }
        state.sent += sent;
    }
    stream.write_all(&body[..sent])
}

type Answer = (&'static str, String, Vec<u8>);

fn not_found() -> Answer {
    ("404 Not Found", String::new(), Vec::new())
}

fn is_large(name: &str) -> bool {
    name.ends_with(".gguf") || name.ends_with(".safetensors")
}

fn listing(state: &State, commit: &str) -> Vec<u8> {
    let names = state.files.keys().filter(|(of, _)| of == commit);
    let names = names.map(|(_, name)| name).chain(&state.rumours);
    let names: Vec<_> = names
        .map(|name| serde_json::json!({"rfilename": name}))
        .collect();
    let body = serde_json::json!({"siblings": names, "sha": commit});
    body.to_string().into_bytes()
}

fn ranged(bytes: &[u8], range: &str, tag: &str, whole_files: bool) -> Answer {
    let tag = format!("ETag: \"{tag}\"\r\n");
    let (first, last) = range.split_once('-').unwrap_or_default();
    let Some(first) = first.parse::<usize>().ok().filter(|_| !whole_files) else {
        return ("200 OK", tag, bytes.to_vec());
    };
    let last = last
        .parse::<usize>()
        .unwrap_or(usize::MAX)
        .min(bytes.len() - 1);
    let head = format!(
        "{tag}Content-Range: bytes {first}-{last}/{}\r\n",
        bytes.len()
    );
    ("206 Partial Content", head, bytes[first..=last].to_vec())
}
