//! A profiling run on disk: one part per prompt, joined into the profile when the last is there.

use std::fs;
use std::path::{Path, PathBuf};

use super::options::MeasureOptions;
use super::probe::Profiler;
use super::rows::{PromptLabel, PromptTables, prompt_tables};
use super::store::{Meta, Profile, TABLES};
use crate::error::{Error, Result};
use crate::files;
use crate::model::decoder::{Decoder, PREFILL_RUN};
use crate::table::Table;

/// One prompt, ready to be prefilled.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The data set's own name for it.
    pub id: String,
    /// Token ids.
    pub ids: Vec<u32>,
}

/// SHA-256 over the ids of all prompts, in order and with their lengths.
pub fn prompts_sha256(prompts: &[Prompt]) -> String {
    let mut bytes = Vec::new();
    for prompt in prompts {
        bytes.extend((prompt.ids.len() as u64).to_le_bytes());
        bytes.extend(prompt.ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    files::sha256_hex(&bytes)
}

/// An output folder that is being filled.
///
/// Every prompt's rows are written as soon as they are measured, and renamed into place: a run that
/// is killed loses the prompt it was on, nothing else. The final tables are always joined from
/// these parts, so that an interrupted and resumed run gives the same bytes as one that was not.
pub struct Run {
    folder: PathBuf,
    parts: PathBuf,
    meta: Meta,
    options: MeasureOptions,
}

impl Run {
    /// Prepares `folder` for the run that `meta` describes.
    ///
    /// Errors: [`Error::OutputExists`] if the folder holds another run's results, or this run's
    /// and `resume` was not asked for; [`Error::Io`] if it cannot be written.
    pub fn prepare(folder: &Path, meta: Meta, resume: bool) -> Result<Self> {
        let options = MeasureOptions {
            window: meta.window,
            thresholds: meta.thresholds.clone(),
            output_thresholds: meta.output_thresholds.clone(),
        };
        options.check()?;
        let run = Self {
            folder: folder.to_owned(),
            parts: folder.join(".parts"),
            meta,
            options,
        };
        run.check_folder(resume)?;
        remove_partial_files(&run.folder)?;
        remove_partial_files(&run.parts)?;
        fs::create_dir_all(&run.parts).map_err(|e| Error::io("create", &run.parts, e))?;
        if !run.is_finished() {
            Profile::write_meta(&run.parts, &run.meta)?;
        }
        Ok(run)
    }

    fn check_folder(&self, resume: bool) -> Result<()> {
        let refuse = |problem: String| {
            Err(Error::OutputExists {
                path: self.folder.clone(),
                problem,
            })
        };
        if self.folder.exists() && !self.folder.is_dir() {
            return refuse("exists and is not a folder; choose another with --out".into());
        }
        let earlier = [&self.folder, &self.parts].map(|f| f.join("meta.json"));
        let Some(path) = earlier.iter().find(|p| p.is_file()) else {
            let used = fs::read_dir(&self.folder).is_ok_and(|entries| {
                // A run that could not even write its settings leaves an empty folder of parts.
                entries
                    .flatten()
                    .any(|entry| entry.path() != self.parts || has_entries(&entry.path()))
            });
            return match used {
                true => {
                    refuse("holds files that are not a profile; choose another with --out".into())
                }
                false => Ok(()),
            };
        };
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let earlier: Meta = serde_json::from_str(&text).map_err(|e| {
            Error::format_at(path, e.line(), format!("is not a profile's metadata: {e}"))
        })?;
        if let Some((field, theirs, ours)) = difference(&earlier, &self.meta) {
            return refuse(format!(
                "holds a profile with another {field} ({theirs} there, {ours} asked for); \
                 choose another folder with --out"
            ));
        }
        match resume {
            true => Ok(()),
            false if self.is_finished() => refuse(format!(
                "already holds this very profile, finished: draw it with `kvprof plot lmba --profile {}`, \
                 print it again with --resume, or choose another folder with --out",
                self.folder.display()
            )),
            false => refuse(
                "holds this very profile, unfinished: continue with --resume, \
                 or choose another folder with --out"
                    .into(),
            ),
        }
    }

    /// Whether the folder already holds the finished profile.
    pub fn is_finished(&self) -> bool {
        self.folder.join("meta.json").is_file()
    }

    /// Whether the rows of prompt `index` are already there; a part that cannot be read is not.
    pub fn has(&self, index: usize) -> bool {
        self.is_finished()
            || TABLES
                .iter()
                .all(|t| Table::read(&self.part(index, t)).is_ok())
    }

    /// Prefills one prompt, measures every layer and writes its rows.
    ///
    /// Errors: whatever prefill, measurement or writing returns; nothing is kept of the prompt then.
    pub fn measure(
        &self,
        index: usize,
        prompt: &Prompt,
        decoder: &Decoder,
        on_layer: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let mut cache = decoder.new_cache(prompt.ids.len())?;
        let mut profiler = Profiler::new(&self.options, on_layer);
        decoder
            .prefill(&prompt.ids, &mut cache, PREFILL_RUN, &mut profiler)
            .map_err(|e| match e {
                Error::PromptTooLong {
                    tokens, context, ..
                } => Error::PromptTooLong {
                    prompt: prompt.id.clone(),
                    tokens,
                    context,
                },
                other => other,
            })?;
        let label = PromptLabel {
            index,
            id: prompt.id.clone(),
            tokens: prompt.ids.len(),
        };
        let tables: PromptTables = prompt_tables(&label, &profiler.finish(), &self.options);
        for (name, table) in TABLES.iter().zip(&tables) {
            table.write(&self.part(index, name))?;
        }
        Ok(())
    }

    /// Joins the parts into the final tables and marks the profile as finished.
    ///
    /// Errors: [`Error::Io`] or [`Error::Table`] if a part is missing or damaged.
    pub fn finish(&self) -> Result<Profile> {
        if !self.is_finished() {
            for name in TABLES {
                let mut joined = Table::default();
                for index in 0..self.meta.prompts {
                    joined.append(Table::read(&self.part(index, name))?)?;
                }
                joined.write(&self.folder.join(format!("{name}.parquet")))?;
            }
            Profile::write_meta(&self.folder, &self.meta)?;
        }
        if self.parts.is_dir() {
            fs::remove_dir_all(&self.parts).map_err(|e| Error::io("remove", &self.parts, e))?;
        }
        Profile::load(&self.folder)
    }

    fn part(&self, index: usize, table: &str) -> PathBuf {
        self.parts.join(format!("{index:06}.{table}.parquet"))
    }
}

/// The first field in which two runs differ, where that changes the result.
fn difference(theirs: &Meta, ours: &Meta) -> Option<(String, String, String)> {
    let fields = |meta: &Meta| match serde_json::to_value(meta) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (theirs, ours) = (fields(theirs), fields(ours));
    ours.iter()
        .filter(|(name, _)| *name != "command" && *name != "model_source")
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
