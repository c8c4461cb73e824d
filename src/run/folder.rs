//! A folder of tables that a long run fills part by part: a killed run loses the part it was on.

use std::fs;
use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::kind::{RunKind, RunSettings};
use super::record::RunRecord;
use super::writer_lock::{LOCK, WriterLock};
use crate::error::{Error, Result};
use crate::files;
use crate::model::source::FilesInUse;
use crate::table::Table;

/// The file whose presence says that a folder is finished.
const META: &str = "meta.json";

/// The folder inside it that holds the parts of an unfinished one.
const PARTS: &str = ".parts";

/// Fields of a record that do not change a run's results.
const INCIDENTAL: [&str; 3] = ["command", "model_source", "baseline"];

impl<S: RunSettings> RunRecord<S> {
    /// Reads the record of a finished folder.
    ///
    /// Errors: [`Error::Format`] for a folder that is not finished, not of this kind, or of another
    /// layout; [`Error::Io`].
    pub fn read(folder: &Path) -> Result<Self> {
        let (kind, path) = (S::KIND, folder.join(META));
        let problem = |problem: String| Err(Error::format(&path, problem));
        if folder.join(PARTS).is_dir() && !path.is_file() {
            let noun = kind.noun;
            let problem = format!("is an unfinished {noun}: run its command again with --resume");
            return Err(Error::format(folder, problem));
        }
        if !path.is_file() {
            let (noun, made_with) = (kind.a(), kind.made_with);
            let problem =
                format!("is not {noun} folder (no meta.json); make one with `{made_with} --out`");
            return Err(Error::format(folder, problem));
        }
        let value: Value = parsed(kind, &path)?;
        let maker = made_with(&value);
        if maker.starts_with("kvprof ") && !kind.is_made_by(&maker) {
            return problem(format!(
                "is not the metadata of {}: `{maker}` made it",
                kind.a()
            ));
        }
        match value.get("schema").and_then(Value::as_u64) {
            Some(schema) if schema != u64::from(kind.schema) => problem(format!(
                "has layout version {schema}, this kvprof reads {}: run {} again",
                kind.schema, kind.made_with
            )),
            _ => parsed(kind, &path),
        }
    }
}

fn parsed<T: DeserializeOwned>(kind: &RunKind, path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_str(&text).map_err(|e| {
        let problem = format!("is not the metadata of {}: {e}", kind.a());
        match e.line() {
            0 => Error::format(path, problem),
            line => Error::format_at(path, line, problem),
        }
    })
}

/// Reads the tables of a folder, in the order of their names.
///
/// Errors: those of [`Table::read`].
pub fn read_tables<const N: usize>(folder: &Path, names: [&str; N]) -> Result<[Table; N]> {
    let mut tables = [const { Table::new() }; N];
    for (table, name) in tables.iter_mut().zip(names) {
        *table = Table::read(&folder.join(format!("{name}.parquet")))?;
    }
    Ok(tables)
}

/// An output folder that is being filled.
///
/// Every part's rows are written as soon as they are there, and renamed into place. The final tables are
/// always joined from these parts, so that an interrupted and resumed run gives the same bytes as one
/// that was not; `meta.json` appears last.
#[derive(Debug)]
pub struct RunFolder<S> {
    folder: PathBuf,
    parts: PathBuf,
    record: RunRecord<S>,
    count: usize,
    reads: FilesInUse,
    /// Held from the preparation of a run to its end; none for one that was finished before.
    lock: Mutex<Option<WriterLock>>,
}

impl<S: RunSettings> RunFolder<S> {
    /// Refuses a place that no run of this kind can fill, whatever its settings: a file, or a folder that
    /// holds something else.
    ///
    /// Errors: [`Error::OutputExists`].
    pub fn check_place(folder: &Path) -> Result<()> {
        Self::earlier(folder).map(drop)
    }

    /// Prepares `folder` for the run of `count` parts that `record` describes.
    ///
    /// Errors: [`Error::OutputExists`] if the folder holds another run's results, or this run's
    /// and `resume` was not asked for, or while another process writes it; [`Error::Io`] if it cannot be
    /// written; those of the settings.
    pub fn prepare(
        folder: &Path,
        record: RunRecord<S>,
        count: usize,
        resume: bool,
    ) -> Result<Self> {
        record.settings.check()?;
        let mut run = Self {
            folder: folder.to_owned(),
            parts: folder.join(PARTS),
            record,
            count,
            reads: FilesInUse::default(),
            lock: Mutex::default(),
        };
        let begun = run.parts.join(LOCK).is_file() && !run.is_finished();
        // That another process is at it comes first: it need not be gone on with.
        let mut lock = begun.then(|| run.take_lock()).transpose()?;
        run.check_earlier(resume)?;
        if run.is_finished() {
            return Ok(run);
        }
        if lock.is_none() {
            fs::create_dir_all(&run.parts).map_err(|e| Error::io("create", &run.parts, e))?;
            lock = Some(run.take_lock()?);
            // Another process may have written, and even finished, between the look and the lock.
            if run.is_finished() {
                drop(lock);
                run.remove_parts()?;
                run.check_earlier(resume)?;
                return Ok(run);
            }
            run.check_earlier(resume)?;
        }
        run.lock = Mutex::new(lock);
        files::remove_partial(&run.folder)?;
        files::remove_partial(&run.parts)?;
        write_record(&run.parts, &run.record)?;
        Ok(run)
    }

    fn take_lock(&self) -> Result<WriterLock> {
        WriterLock::take(&self.parts, &self.folder)
    }

    /// Removes what a finished run needs no longer; another process may be at the same.
    fn remove_parts(&self) -> Result<()> {
        match fs::remove_dir_all(&self.parts) {
            Err(e) if !matches!(e.kind(), NotFound | DirectoryNotEmpty) => {
                Err(Error::io("remove", &self.parts, e))
            }
            _ => Ok(()),
        }
    }

    /// The run of a model whose weights are read from these files: no part is written once they have changed.
    pub fn reading(self, reads: FilesInUse) -> Self {
        Self { reads, ..self }
    }

    /// Refuses weights that changed since the run began, before anything is kept that was computed from them.
    ///
    /// Errors: those of [`FilesInUse::check`].
    pub(crate) fn check_reads(&self) -> Result<()> {
        self.reads.check()
    }

    /// The record of the run of this kind that `folder` holds, finished or not.
    fn earlier(folder: &Path) -> Result<Option<RunRecord<S>>> {
        if folder.exists() && !folder.is_dir() {
            let problem = "exists and is not a folder; choose another with --out";
            return Err(in_the_way(folder, problem.to_owned()));
        }
        let parts = folder.join(PARTS);
        let places = [folder, &parts].map(|f| f.join(META));
        if let Some(path) = places.iter().find(|p| p.is_file()) {
            return match parsed(S::KIND, path) {
                Err(Error::Format { .. }) => {
                    let problem = format!(
                        "holds the results of something else than {}, or of another version of kvprof; choose \
                         another folder with --out",
                        S::KIND.made_with
                    );
                    Err(in_the_way(folder, problem))
                }
                read => read.map(Some),
            };
        }
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        let whole = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            !files::is_partial(&name.to_string_lossy()) && name != LOCK
        };
        // A run that could not even write its record leaves a folder of parts without any whole file but its lock.
        let used = |path: PathBuf| path != parts || entries(&path).any(|entry| whole(&entry));
        if entries(folder).any(|entry| whole(&entry) && used(entry.path())) {
            let noun = S::KIND.a();
            let problem = format!("holds files that are not {noun}; choose another with --out");
            return Err(in_the_way(folder, problem));
        }
        Ok(None)
    }

    fn check_earlier(&self, resume: bool) -> Result<()> {
        let kind = S::KIND;
        let Some(earlier) = Self::earlier(&self.folder)? else {
            return Ok(());
        };
        let problem = if let Some((field, theirs, ours)) = difference(&earlier, &self.record) {
            format!(
                "holds {} with another {field} ({theirs} there, {ours} asked for); \
                 choose another folder with --out",
                kind.a()
            )
        } else if resume {
            return Ok(());
        } else if self.is_finished() {
            format!(
                "already holds this very {}, finished: draw it with `{} {}`, \
                 print it again with --resume, or choose another folder with --out",
                kind.noun,
                kind.drawn_with,
                self.folder.display()
            )
        } else {
            format!(
                "holds this very {}, unfinished: continue with --resume, \
                 or choose another folder with --out",
                kind.noun
            )
        };
        Err(in_the_way(&self.folder, problem))
    }

    /// The record of this run.
    pub fn record(&self) -> &RunRecord<S> {
        &self.record
    }

    /// File names of the tables that a part has, without ending.
    pub fn tables(&self) -> &'static [&'static str] {
        self.record.settings.tables()
    }

    /// The folder of parts, and of whatever else an unfinished run needs; it goes when the run is finished.
    pub fn parts_folder(&self) -> &Path {
        &self.parts
    }

    /// Whether the folder already holds the finished tables.
    pub fn is_finished(&self) -> bool {
        self.folder.join(META).is_file()
    }

    /// Whether the rows of part `index` are already there; a part that cannot be read is not.
    pub fn has(&self, index: usize) -> bool {
        let mut tables = self.record.settings.tables().iter();
        self.is_finished() || tables.all(|t| Table::read(&self.part(index, t)).is_ok())
    }

    /// Writes the rows of one part, in the order of the run's tables.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`]; [`Error::Invalid`] for another number of tables; those of
    /// [`FilesInUse::check`] for weights that changed while the rows were computed, of which nothing is written.
    pub fn write(&self, index: usize, tables: &[Table]) -> Result<()> {
        self.check_reads()?;
        let names = self.record.settings.tables();
        if tables.len() != names.len() {
            let bound = format!("{} has {}", S::KIND.a(), names.len());
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
            for name in self.record.settings.tables() {
                let mut joined = Table::default();
                for index in 0..self.count {
                    joined.append(Table::read(&self.part(index, name))?)?;
                }
                joined.write(&self.folder.join(format!("{name}.parquet")))?;
            }
            write_record(&self.folder, &self.record)?;
        }
        // An open file cannot be removed everywhere, and what is finished needs no writer.
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        self.remove_parts()
    }

    fn part(&self, index: usize, table: &str) -> PathBuf {
        self.parts.join(format!("{index:06}.{table}.parquet"))
    }
}

fn in_the_way(folder: &Path, problem: String) -> Error {
    Error::OutputExists {
        path: folder.to_owned(),
        problem,
    }
}

/// The program and verb of the command line that made a folder; empty where it is not told.
fn made_with(record: &Value) -> String {
    let command = record.get("command").and_then(Value::as_str);
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
fn write_record(folder: &Path, record: &impl Serialize) -> Result<()> {
    let path = folder.join(META);
    let text =
        serde_json::to_string_pretty(record).map_err(|e| Error::format(&path, e.to_string()))?;
    files::replace_with(&path, format!("{text}\n").as_bytes())
}

/// The first field in which two runs differ, where that changes the result.
fn difference(theirs: &impl Serialize, ours: &impl Serialize) -> Option<(String, String, String)> {
    let (theirs, ours) = (fields(theirs), fields(ours));
    // A field that only one of them has says something else than its absence.
    let mut relevant =
        (ours.keys().chain(theirs.keys())).filter(|name| !INCIDENTAL.contains(&name.as_str()));
    let name = relevant.find(|name| theirs.get(*name) != ours.get(*name))?;
    let told =
        |fields: &Map<String, Value>| fields.get(name).map_or("none".to_owned(), Value::to_string);
    Some((name.replace('_', " "), told(&theirs), told(&ours)))
}

fn fields(record: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
