//! Where the residual stream of a prompt waits between two layers: in memory, or in a scratch file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::model::HiddenRows;
use crate::model::decoder::PREFILL_RUN;

/// A file without a name that several prompts share; it is gone when the process ends, however it does.
#[derive(Debug)]
pub(super) struct ScratchFile {
    file: Mutex<File>,
    /// The folder that it lies in, for messages.
    folder: PathBuf,
}

impl ScratchFile {
    /// A file in `folder`.
    ///
    /// Errors: [`Error::Io`].
    pub(super) fn create(folder: &Path) -> Result<Arc<Self>> {
        let file = tempfile::tempfile_in(folder);
        let file = file.map_err(|e| Error::io("write a scratch file into", folder, e))?;
        Ok(Arc::new(Self {
            file: Mutex::new(file),
            folder: folder.to_owned(),
        }))
    }

    fn at<R>(
        &self,
        offset: u64,
        action: &'static str,
        work: impl FnOnce(&mut File) -> io::Result<R>,
    ) -> Result<R> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let found = file.seek(SeekFrom::Start(offset));
        let done = found.and_then(|_| work(&mut file));
        done.map_err(|e| Error::io(action, &self.folder, e))
    }
}

/// How the rows of a residual stream lie in memory and files.
#[derive(Clone, Debug)]
pub(super) struct RowShape {
    /// Numbers of a row.
    pub(super) width: usize,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

impl RowShape {
    /// Of rows that are there.
    ///
    /// Errors: [`Error::Candle`] for a tensor that is no matrix.
    pub(super) fn of(rows: &Tensor) -> Result<Self> {
        Ok(Self {
            width: rows.dim(1)?,
            dtype: rows.dtype(),
            device: rows.device().clone(),
        })
    }

    /// Bytes of so many rows.
    pub(super) fn bytes(&self, rows: usize) -> usize {
        rows * self.width * self.dtype.size_in_bytes()
    }

    /// Reads rows.
    ///
    /// Shapes: `(rows, width)`. Errors: [`Error::Candle`].
    fn rows(&self, bytes: &[u8], rows: usize) -> Result<Tensor> {
        let shape = [rows, self.width];
        Ok(Tensor::from_raw_buffer(
            bytes,
            self.dtype,
            &shape,
            &self.device,
        )?)
    }
}

/// The residual stream of one prompt.
#[derive(Debug)]
pub(super) struct HiddenStates {
    tokens: usize,
    shape: RowShape,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// One tensor per run; none while a layer has it.
    Memory(Vec<Option<Tensor>>),
    /// From a byte of the file on.
    Scratch(Arc<ScratchFile>, u64),
}

impl HiddenStates {
    /// Of a prompt of `tokens` whose rows are yet to be put: in memory, or in a file from a byte on.
    pub(super) fn new(
        tokens: usize,
        shape: RowShape,
        scratch: Option<(Arc<ScratchFile>, u64)>,
    ) -> Self {
        let place = match scratch {
            Some((file, offset)) => Place::Scratch(file, offset),
            None => Place::Memory(vec![None; tokens.div_ceil(PREFILL_RUN)]),
        };
        Self {
            tokens,
            shape,
            place,
        }
    }

    /// Positions of the prompt's runs.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.tokens;
        (0..tokens)
            .step_by(PREFILL_RUN)
            .map(move |start| start..tokens.min(start + PREFILL_RUN))
    }

    /// Writes all rows to what writes a file at `path`; they stay where they are.
    ///
    /// Errors: [`Error::Io`]; as [`HiddenRows::take`].
    pub(super) fn copy_to(&mut self, out: &mut impl Write, path: &Path) -> Result<()> {
        for rows in self.runs() {
            let hidden = match &self.place {
                Place::Memory(runs) => runs.get(rows.start / PREFILL_RUN).cloned().flatten(),
                Place::Scratch(..) => Some(self.take(rows.clone())?),
            };
            let hidden = hidden.ok_or_else(|| not_there(&rows))?.contiguous()?;
            let written = hidden.write_bytes(out);
            written.map_err(|e| Error::io("write", path, io::Error::other(e.to_string())))?;
        }
        Ok(())
    }

    /// Takes all rows from what reads a file at `path` that [`HiddenStates::copy_to`] wrote.
    ///
    /// Errors: [`Error::Io`]; as [`HiddenRows::put`].
    pub(super) fn copy_from(&mut self, file: &mut impl Read, path: &Path) -> Result<()> {
        for rows in self.runs() {
            let mut bytes = vec![0u8; self.shape.bytes(rows.len())];
            let read = file.read_exact(&mut bytes);
            read.map_err(|e| Error::io("read", path, e))?;
            self.put(rows.clone(), self.shape.rows(&bytes, rows.len())?)?;
        }
        Ok(())
    }
}

impl HiddenRows for HiddenStates {
    fn take(&mut self, rows: Range<usize>) -> Result<Tensor> {
        match &mut self.place {
            Place::Memory(runs) => {
                let run = runs.get_mut(rows.start / PREFILL_RUN);
                run.and_then(Option::take).ok_or_else(|| not_there(&rows))
            }
            Place::Scratch(file, offset) => {
                let from = *offset + self.shape.bytes(rows.start) as u64;
                let mut bytes = vec![0u8; self.shape.bytes(rows.len())];
                file.at(from, "read the scratch file in", |file| {
                    file.read_exact(&mut bytes)
                })?;
                self.shape.rows(&bytes, rows.len())
            }
        }
    }

    fn put(&mut self, rows: Range<usize>, hidden: Tensor) -> Result<()> {
        match &mut self.place {
            Place::Memory(runs) => {
                if let Some(run) = runs.get_mut(rows.start / PREFILL_RUN) {
                    *run = Some(hidden);
                }
                Ok(())
            }
            Place::Scratch(file, offset) => {
                let from = *offset + self.shape.bytes(rows.start) as u64;
                let mut bytes = Vec::with_capacity(self.shape.bytes(rows.len()));
                hidden.contiguous()?.write_bytes(&mut bytes)?;
                file.at(from, "write the scratch file in", |file| {
                    file.write_all(&bytes)
                })
            }
        }
    }
}

fn not_there(rows: &Range<usize>) -> Error {
    let bound = "these rows of the residual stream are not there";
    Error::invalid("range of rows", format!("{rows:?}"), bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(tokens: usize, scratch: Option<(Arc<ScratchFile>, u64)>) -> HiddenStates {
        let numbers: Vec<f32> = (0..tokens * 3).map(|i| i as f32).collect();
        let all = Tensor::from_vec(numbers, (tokens, 3), &Device::Cpu).unwrap();
        let mut states = HiddenStates::new(tokens, RowShape::of(&all).unwrap(), scratch);
        for rows in states.runs() {
            let run = all.narrow(0, rows.start, rows.len()).unwrap();
            states.put(rows, run).unwrap();
        }
        states
    }

    fn numbers(states: &mut HiddenStates) -> Vec<f32> {
        let rows = states.runs().collect::<Vec<_>>().into_iter();
        rows.flat_map(|rows| {
            let run = states.take(rows.clone()).unwrap();
            let numbers = run.flatten_all().unwrap().to_vec1().unwrap();
            states.put(rows, run).unwrap();
            numbers
        })
        .collect()
    }

    #[test]
    fn rows_are_the_same_in_memory_in_a_scratch_file_and_in_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let file = ScratchFile::create(folder.path()).unwrap();
        let tokens = PREFILL_RUN + 5;
        let mut memory = filled(tokens, None);
        let mut before = filled(2, Some((file.clone(), 0)));
        let mut scratch = filled(tokens, Some((file, 2 * 3 * 4)));
        let want: Vec<f32> = (0..tokens * 3).map(|i| i as f32).collect();
        assert_eq!(numbers(&mut memory), want);
        assert_eq!(numbers(&mut scratch), want);
        assert_eq!(numbers(&mut before), want[..6]);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "no name"
        );
        for states in [&mut memory, &mut scratch] {
            let mut bytes = Vec::new();
            states.copy_to(&mut bytes, folder.path()).unwrap();
            assert_eq!(bytes.len(), tokens * 12);
            let mut again = HiddenStates::new(tokens, states.shape.clone(), None);
            again
                .copy_from(&mut bytes.as_slice(), folder.path())
                .unwrap();
            assert_eq!(numbers(&mut again), want);
            let mut short = &bytes[1..];
            assert!(again.copy_from(&mut short, folder.path()).is_err());
        }
    }

    #[test]
    fn rows_that_a_layer_has_are_not_there() {
        let mut states = filled(3, None);
        states.take(0..3).unwrap();
        assert!(states.take(0..3).is_err());
        assert!(states.copy_to(&mut Vec::new(), Path::new("")).is_err());
    }
}
