//! A folder of tables that a long run fills part by part: a killed run loses the part it was on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;
use crate::table::Table;

/// The file whose presence says that a folder is finished.
const META: &str = "meta.json";

/// The folder inside it that holds the parts of an unfinished one.
const PARTS: &str = ".parts";

/// Fields of a run's settings that do not change its results.
const INCIDENTAL: [&str; 3] = ["command", "model_source", "baseline"];

/// What a kind of run leaves behind, and how messages call it.
#[derive(Debug)]
pub struct RunKind {
    /// What the folder is: "profile".
    pub noun: &'static str,
    /// The command that makes one: "kvprof profile".
    pub made_with: &'static str,
    /// The command that draws one, to be followed by the folder.
    pub drawn_with: &'static str,
    /// File names of its tables, without ending.
    pub tables: &'static [&'static str],
    /// Version of its layout, the field `schema` of its settings.
    pub schema: u32,
}

impl RunKind {
    /// The noun after its article.
    fn a(&self) -> String {
        let vowel = self.noun.starts_with(['a', 'e', 'i', 'o']);
        format!("{} {}", if vowel { "an" } else { "a" }, self.noun)
    }

    /// Reads the settings of a finished folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not finished, not of this kind, or of another
    /// layout; [`Error::Io`].
    pub fn read_meta<M: DeserializeOwned>(&self, folder: &Path) -> Result<M> {
        let path = folder.join(META);
        if !path.is_file() {
            let problem = if folder.join(PARTS).is_dir() {
                format!(
                    "is an unfinished {}: run its command again with --resume",
                    self.noun
                )
            } else {
                let (noun, made_with) = (self.a(), self.made_with);
                format!("is not {noun} folder (no meta.json); make one with `{made_with} --out`")
            };
            return Err(Error::format(folder, problem));
        }
        let value: Value = self.parsed(&path)?;
        if !self.made(&value) {
            let problem = format!(
                "is not the metadata of {}: `{}` made it",
                self.a(),
                made_with(&value)
            );
            return Err(Error::format(&path, problem));
        }
        match value.get("schema").and_then(Value::as_u64) {
            Some(schema) if schema != u64::from(self.schema) => {
                let problem = format!(
                    "has layout version {schema}, this kvprof reads {}: run {} again",
                    self.schema, self.made_with
                );
                Err(Error::format(&path, problem))
            }
            _ => self.parsed(&path),
        }
    }

    /// Whether settings are of this kind, as the command line in them tells.
    fn made(&self, settings: &Value) -> bool {
        let made_with = made_with(settings);
        !made_with.starts_with("kvprof ") || made_with == self.made_with
    }

    /// Refuses a place that no run of this kind can fill, whatever its settings: a file, or a folder that
    /// holds something else.
    ///
    /// Errors: [`Error::OutputExists`].
    pub fn check_place<M: DeserializeOwned>(&self, folder: &Path) -> Result<()> {
        self.earlier::<M>(folder).map(drop)
    }

    /// The settings of the run of this kind that `folder` holds, finished or not.
    fn earlier<M: DeserializeOwned>(&self, folder: &Path) -> Result<Option<M>> {
        let refuse = |problem: String| {
            Err(Error::OutputExists {
                path: folder.to_owned(),
                problem,
            })
        };
        if folder.exists() && !folder.is_dir() {
            return refuse("exists and is not a folder; choose another with --out".into());
        }
        let parts = folder.join(PARTS);
        let places = [folder, &parts].map(|f| f.join(META));
        if let Some(path) = places.iter().find(|p| p.is_file()) {
            return match self.parsed(path) {
                Ok(meta) => Ok(Some(meta)),
                Err(Error::Io { .. }) => self.parsed(path).map(Some),
                Err(_) => refuse(format!(
                    "holds the results of something else than {}, or of another version of kvprof; choose \
                     another folder with --out",
                    self.made_with
                )),
            };
        }
        let used = fs::read_dir(folder).is_ok_and(|entries| {
            // A run that could not even write its settings leaves an empty folder of parts.
            entries
                .flatten()
                .any(|entry| entry.path() != parts || has_entries(&entry.path()))
        });
        match used {
            true => refuse(format!(
                "holds files that are not {}; choose another with --out",
                self.a()
            )),
            false => Ok(None),
        }
    }

    fn parsed<M: DeserializeOwned>(&self, path: &Path) -> Result<M> {
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        serde_json::from_str(&text).map_err(|e| {
            let problem = format!("is not the metadata of {}: {e}", self.a());
            Error::format_at(path, e.line(), problem)
        })
    }
}

/// An output folder that is being filled.
///
/// Every part's rows are written as soon as they are there, and renamed into place. The final tables are
/// always joined from these parts, so that an interrupted and resumed run gives the same bytes as one
/// that was not; `meta.json` appears last.
#[derive(Debug)]
pub struct PartsFolder<M> {
    folder: PathBuf,
    parts: PathBuf,
    kind: &'static RunKind,
    meta: M,
    count: usize,
}

impl<M: Serialize + DeserializeOwned> PartsFolder<M> {
    /// Prepares `folder` for the run of `count` parts that `meta` describes.
    ///
    /// Errors: [`Error::OutputExists`] if the folder holds another run's results, or this run's
    /// and `resume` was not asked for; [`Error::Io`] if it cannot be written.
    pub fn prepare(
        folder: &Path,
        kind: &'static RunKind,
        meta: M,
        count: usize,
        resume: bool,
    ) -> Result<Self> {
        let run = Self {
            folder: folder.to_owned(),
            parts: folder.join(PARTS),
            kind,
            meta,
            count,
        };
        run.check_folder(resume)?;
        remove_partial_files(&run.folder)?;
        remove_partial_files(&run.parts)?;
        fs::create_dir_all(&run.parts).map_err(|e| Error::io("create", &run.parts, e))?;
        if !run.is_finished() {
            write_meta(&run.parts, &run.meta)?;
        }
        Ok(run)
    }

    fn check_folder(&self, resume: bool) -> Result<()> {
        let noun = self.kind.noun;
        let refuse = |problem: String| {
            Err(Error::OutputExists {
                path: self.folder.clone(),
                problem,
            })
        };
        let Some(earlier) = self.kind.earlier::<M>(&self.folder)? else {
            return Ok(());
        };
        if let Some((field, theirs, ours)) = difference(&earlier, &self.meta) {
            return refuse(format!(
                "holds {} with another {field} ({theirs} there, {ours} asked for); \
                 choose another folder with --out",
                self.kind.a()
            ));
        }
        match resume {
            true => Ok(()),
            false if self.is_finished() => refuse(format!(
                "already holds this very {noun}, finished: draw it with `{} {}`, \
                 print it again with --resume, or choose another folder with --out",
                self.kind.drawn_with,
                self.folder.display()
            )),
            false => refuse(format!(
                "holds this very {noun}, unfinished: continue with --resume, \
                 or choose another folder with --out"
            )),
        }
    }

    /// The settings of this run.
    pub fn meta(&self) -> &M {
        &self.meta
    }

    /// Whether the folder already holds the finished tables.
    pub fn is_finished(&self) -> bool {
        self.folder.join(META).is_file()
    }

    /// Whether the rows of part `index` are already there; a part that cannot be read is not.
    pub fn has(&self, index: usize) -> bool {
        let mut tables = self.kind.tables.iter();
        self.is_finished() || tables.all(|t| Table::read(&self.part(index, t)).is_ok())
    }

    /// Writes the rows of one part, in the order of the kind's tables.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`]; [`Error::Invalid`] for another number of tables.
    pub fn write(&self, index: usize, tables: &[Table]) -> Result<()> {
        let names = self.kind.tables;
        if tables.len() != names.len() {
            let bound = format!("{} has {}", self.kind.a(), names.len());
            return Err(Error::invalid("number of tables", tables.len(), bound));
        }
        for (name, table) in names.iter().zip(tables) {
            table.write(&self.part(index, name))?;
        }
        Ok(())
    }

    /// Joins the parts into the final tables and marks the folder as finished.
    ///
    /// Errors: [`Error::Io`] or [`Error::Table`] if a part is missing or damaged.
    pub fn finish(&self) -> Result<()> {
        if !self.is_finished() {
            for name in self.kind.tables {
                let mut joined = Table::default();
                for index in 0..self.count {
                    joined.append(Table::read(&self.part(index, name))?)?;
                }
                joined.write(&self.folder.join(format!("{name}.parquet")))?;
            }
            write_meta(&self.folder, &self.meta)?;
        }
        if self.parts.is_dir() {
            fs::remove_dir_all(&self.parts).map_err(|e| Error::io("remove", &self.parts, e))?;
        }
        Ok(())
    }

    fn part(&self, index: usize, table: &str) -> PathBuf {
        self.parts.join(format!("{index:06}.{table}.parquet"))
    }
}

/// The program and verb of the command line that made a folder; empty where it is not told.
fn made_with(settings: &Value) -> String {
    let command = settings.get("command").and_then(Value::as_str);
    let words = command.unwrap_or_default().split_whitespace().take(2);
    words.collect::<Vec<_>>().join(" ")
}

/// The command that made a folder of this program's, finished or not: "kvprof speed".
pub fn made_by(folder: &Path) -> Option<String> {
    let places = [folder.join(META), folder.join(PARTS).join(META)];
    let text = places
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())?;
    let maker = made_with(&serde_json::from_str(&text).ok()?);
    maker.starts_with("kvprof ").then_some(maker)
}

/// Writes `meta.json`, which makes a folder a finished one.
fn write_meta(folder: &Path, meta: &impl Serialize) -> Result<()> {
    let path = folder.join(META);
    let text =
        serde_json::to_string_pretty(meta).map_err(|e| Error::format(&path, e.to_string()))?;
    files::replace_with(&path, format!("{text}\n").as_bytes())
}

/// The first field in which two runs differ, where that changes the result.
fn difference(theirs: &impl Serialize, ours: &impl Serialize) -> Option<(String, String, String)> {
    let fields = |meta: serde_json::Result<Value>| match meta {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (theirs, ours) = (
        fields(serde_json::to_value(theirs)),
        fields(serde_json::to_value(ours)),
    );
    ours.iter()
        .filter(|(name, _)| !INCIDENTAL.contains(&name.as_str()))
        .find(|(name, value)| theirs.get(*name) != Some(value))
        .map(|(name, value)| {
            let old = theirs
                .get(name)
                .map_or("none".to_owned(), ToString::to_string);
            (name.replace('_', " "), old, value.to_string())
        })
}

fn has_entries(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Removes a leftover of a write that was killed half-way.
///
/// Errors: [`Error::Io`].
fn remove_partial_files(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if files::is_partial(&name.to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(|e| Error::io("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Meta {
        schema: u32,
        command: String,
        window: usize,
    }

    static KIND: RunKind = RunKind {
        noun: "essay",
        made_with: "kvprof essay",
        drawn_with: "kvprof plot essay --essay",
        tables: &["words"],
        schema: 3,
    };

    fn meta(window: usize, command: &str) -> Meta {
        Meta {
            schema: 3,
            command: command.to_owned(),
            window,
        }
    }

    fn rows(value: u32) -> Table {
        let mut table = Table::default();
        table.push("value", Column::Count(vec![value]));
        table
    }

    #[test]
    fn parts_become_tables_whatever_was_written_first() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("run");
        let run = PartsFolder::prepare(&folder, &KIND, meta(8, "a"), 2, false).unwrap();
        run.write(1, &[rows(11)]).unwrap();
        assert!(run.has(1) && !run.has(0) && run.finish().is_err());
        assert!(run.write(0, &[]).is_err(), "no table at all");
        let unfinished = KIND.read_meta::<Meta>(&folder).unwrap_err().to_string();
        assert!(
            unfinished.contains("unfinished essay") && unfinished.contains("--resume"),
            "{unfinished}"
        );
        let run = PartsFolder::prepare(&folder, &KIND, meta(8, "b"), 2, true).unwrap();
        run.write(0, &[rows(10)]).unwrap();
        run.finish().unwrap();
        let joined = Table::read(&folder.join("words.parquet")).unwrap();
        assert_eq!(joined.counts("value").unwrap(), [10, 11]);
        assert_eq!(KIND.read_meta::<Meta>(&folder).unwrap().window, 8);
        assert!(!folder.join(".parts").exists());
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("run");
        let prepare = |window: usize, resume: bool| {
            PartsFolder::prepare(&folder, &KIND, meta(window, "a"), 0, resume)
        };
        prepare(8, false).unwrap();
        let said = |result: Result<PartsFolder<Meta>>| result.unwrap_err().to_string();
        assert!(said(prepare(8, false)).contains("unfinished"));
        let other = said(prepare(9, true));
        assert!(
            other.contains("an essay with another window (8 there, 9"),
            "{other}"
        );
        prepare(8, true).unwrap().finish().unwrap();
        assert!(said(prepare(8, false)).contains("kvprof plot essay --essay"));
        fs::write(
            folder.join(META),
            r#"{"schema": 4, "command": "kvprof poem --rhyme"}"#,
        )
        .unwrap();
        let other = KIND.read_meta::<Meta>(&folder).unwrap_err().to_string();
        assert!(other.contains("`kvprof poem` made it"), "{other}");
        fs::write(folder.join(META), r#"{"schema": 4}"#).unwrap();
        let layout = KIND.read_meta::<Meta>(&folder).unwrap_err().to_string();
        assert!(layout.contains("layout version 4"), "{layout}");
        fs::write(folder.join(META), "{").unwrap();
        let foreign = said(prepare(8, true));
        assert!(
            foreign.contains("something else than kvprof essay"),
            "{foreign}"
        );
        let place = KIND.check_place::<Meta>(&folder).unwrap_err();
        assert_eq!(place.to_string(), foreign);
        let strange = temporary.path().join("strange");
        fs::create_dir(&strange).unwrap();
        fs::write(strange.join("thesis.txt"), "mine").unwrap();
        let refused = PartsFolder::prepare(&strange, &KIND, meta(8, "a"), 0, true);
        assert!(said(refused).contains("not an essay"));
    }
}
