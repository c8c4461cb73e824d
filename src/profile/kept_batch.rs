//! What is kept of a batch of prompts between two layers, so that a killed run goes on from there.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hidden_states::HiddenStates;
use crate::error::{Error, Result};
use crate::files;
use crate::table::Table;

/// How a folder of it is called, followed by the number of its layers.
const KEPT: &str = "kept-";
/// One that is being written.
const UNFINISHED: &str = "keeping";
const STATE: &str = "state.json";
const HIDDEN: &str = "hidden";

/// How far a batch has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptState {
    /// Numbers of its prompts in the run.
    pub(super) prompts: Vec<usize>,
    /// Layers that all of them have passed.
    pub(super) layers: usize,
}

/// A prompt of a batch between two layers.
pub(super) struct BetweenLayers {
    /// Number in the run.
    pub(super) index: usize,
    pub(super) hidden: HiddenStates,
    /// Rows of the layers that it has passed.
    pub(super) tables: Vec<Table>,
}

/// The folder of a run's parts, in which one batch at a time is kept.
pub(super) struct BatchKeeper<'a> {
    parts: &'a Path,
    /// Names of the tables of a part.
    tables: &'static [&'static str],
}

impl<'a> BatchKeeper<'a> {
    pub(super) fn new(parts: &'a Path, tables: &'static [&'static str]) -> Self {
        Self { parts, tables }
    }

    /// Keeps a batch; what was kept before goes when all of this is there.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`].
    pub(super) fn keep(&self, state: &KeptState, prompts: &mut [&mut BetweenLayers]) -> Result<()> {
        let (unfinished, finished) = (self.parts.join(UNFINISHED), self.place(state.layers));
        remove(&unfinished)?;
        fs::create_dir(&unfinished).map_err(|e| Error::io("create", &unfinished, e))?;
        for prompt in prompts.iter() {
            for (name, table) in self.tables.iter().zip(&prompt.tables) {
                table.write(&table_path(&unfinished, prompt.index, name))?;
            }
        }
        write_hidden(&unfinished.join(HIDDEN), prompts)?;
        let path = unfinished.join(STATE);
        let text = serde_json::to_vec(state).map_err(|e| Error::format(&path, e.to_string()))?;
        files::replace_with(&path, &text)?;
        remove(&finished)?;
        fs::rename(&unfinished, &finished).map_err(|e| Error::io("rename", &unfinished, e))?;
        self.forget_but(Some(&finished))
    }

    /// How far the batch that is kept has come, if there is one.
    pub(super) fn state(&self) -> Option<KeptState> {
        let states = self.folders().into_iter().filter_map(|folder| {
            let state: KeptState =
                serde_json::from_slice(&fs::read(folder.join(STATE)).ok()?).ok()?;
            (folder == self.place(state.layers)).then_some(state)
        });
        states.max_by_key(|state| state.layers)
    }

    /// Takes up what was kept of prompts, in the order in which they were kept.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`]; as [`HiddenStates::copy_from`].
    pub(super) fn take_up(
        &self,
        state: &KeptState,
        prompts: &mut [&mut BetweenLayers],
    ) -> Result<()> {
        let folder = self.place(state.layers);
        let path = folder.join(HIDDEN);
        let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        for prompt in prompts {
            prompt.hidden.copy_from(&mut file, &path)?;
            let tables = self.tables.iter();
            let tables = tables.map(|name| Table::read(&table_path(&folder, prompt.index, name)));
            prompt.tables = tables.collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Removes all that is kept.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn forget(&self) -> Result<()> {
        remove(&self.parts.join(UNFINISHED))?;
        self.forget_but(None)
    }

    fn forget_but(&self, last: Option<&Path>) -> Result<()> {
        let folders = self.folders().into_iter();
        let mut old = folders.filter(|folder| Some(folder.as_path()) != last);
        old.try_for_each(|folder| remove(&folder))
    }

    fn place(&self, layers: usize) -> PathBuf {
        self.parts.join(format!("{KEPT}{layers:05}"))
    }

    fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.parts).into_iter().flatten().flatten();
        let kept = entries.filter(|e| e.file_name().to_string_lossy().starts_with(KEPT));
        kept.map(|entry| entry.path()).collect()
    }
}

fn table_path(folder: &Path, prompt: usize, table: &str) -> PathBuf {
    folder.join(format!("{prompt:06}.{table}.parquet"))
}

fn write_hidden(path: &Path, prompts: &mut [&mut BetweenLayers]) -> Result<()> {
    let unwritten = |e| Error::io("write", path, e);
    let file = File::create(path).map_err(unwritten)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    for prompt in prompts {
        prompt.hidden.copy_to(&mut out, path)?;
    }
    let written = out.flush();
    drop(out);
    written.and_then(|()| file.sync_all()).map_err(unwritten)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder).map_err(|e| Error::io("remove", folder, e))?;
    }
    Ok(())
}
