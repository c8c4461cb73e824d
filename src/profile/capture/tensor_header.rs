//! What a file of tensors says of itself before its numbers: labels, names, types and shapes.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use candle_core::DType;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::{Error, Result};
use crate::model::check_tensor_places;

/// Bytes before a header that say how long it is.
pub(super) const LENGTH: usize = 8;
/// No header of four tensors is longer: 1 MiB.
pub(super) const LONGEST_HEADER: usize = 1 << 20;

/// What a file must say of itself.
pub(super) struct Wanted<const N: usize> {
    /// Names and numbers, such as `layer` and 3.
    pub(super) labels: Vec<(&'static str, usize)>,
    /// Names and shapes.
    pub(super) tensors: [(&'static str, Vec<usize>); N],
}

impl<const N: usize> Wanted<N> {
    /// Bytes that the tensors of such a file can take at most.
    pub(super) fn most_data(&self) -> usize {
        let numbers = (self.tensors.iter()).map(|(_, shape)| shape.iter().product::<usize>());
        4 * numbers.sum::<usize>()
    }

    /// Bytes that such a file can have at most.
    pub(super) fn most_bytes(&self) -> usize {
        LENGTH + LONGEST_HEADER + self.most_data()
    }

    /// Its labels in words, for messages.
    pub(super) fn which(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<String> = labels.map(|(name, n)| format!("{name} {n}")).collect();
        labels.join(", ")
    }
}

/// A header whose tensors lie one after another to the end of their file.
pub(super) struct TensorHeader<'a> {
    said: Metadata,
    /// Where the file lies, for messages.
    place: &'a Path,
}

impl<'a> TensorHeader<'a> {
    /// A header behind which `data` bytes follow.
    ///
    /// Errors: [`Error::Format`].
    fn parse(header: &[u8], data: usize, place: &'a Path) -> Result<Self> {
        check_tensor_places(header, data).map_err(|problem| damaged(place, &problem))?;
        let said = serde_json::from_slice(header);
        Ok(Self {
            said: said.map_err(|e| damaged(place, &e.to_string()))?,
            place,
        })
    }

    /// The header of a whole file in memory, and the bytes behind it.
    ///
    /// Errors: [`Error::Format`].
    pub(super) fn of_bytes(bytes: &'a [u8], place: &'a Path) -> Result<(Self, &'a [u8])> {
        let (length, rest) = bytes
            .split_first_chunk::<LENGTH>()
            .ok_or_else(|| too_short(place, bytes.len()))?;
        let length = header_length(*length, place)?;
        let (header, data) = rest
            .split_at_checked(length)
            .ok_or_else(|| too_short(place, bytes.len()))?;
        Ok((Self::parse(header, data.len(), place)?, data))
    }

    /// The header of a file on disk, whose numbers are not read.
    ///
    /// Errors: [`Error::Format`], [`Error::Io`].
    pub(super) fn of_file(path: &'a Path) -> Result<Self> {
        let unread = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let bytes = file.metadata().map_err(unread)?.len();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes < LENGTH {
            return Err(too_short(path, bytes));
        }
        let mut length = [0; LENGTH];
        file.read_exact(&mut length).map_err(unread)?;
        let length = header_length(length, path)?;
        let Some(data) = (bytes - LENGTH).checked_sub(length) else {
            return Err(too_short(path, bytes));
        };
        let mut header = vec![0; length];
        file.read_exact(&mut header).map_err(unread)?;
        Self::parse(&header, data, path)
    }

    /// Refuses a file that is of something else, or whose tensors are not those that are wanted.
    ///
    /// Errors: [`Error::Format`].
    pub(super) fn check<const N: usize>(&self, wanted: &Wanted<N>) -> Result<()> {
        let said = self.said.metadata().as_ref();
        for (name, number) in &wanted.labels {
            let found = said.and_then(|said| said.get(*name));
            let found = found.map_or("", String::as_str);
            if found != number.to_string() {
                let problem =
                    format!("says that it is of {name} \"{found}\", {name} {number} is expected");
                return Err(Error::format(self.place, problem));
            }
        }
        let mut tensors = wanted.tensors.iter();
        tensors.try_for_each(|(name, shape)| self.tensor(name, shape).map(drop))
    }

    /// Element type and place of a tensor.
    ///
    /// Errors: [`Error::Format`] where it is missing, of another shape or a type that captures do not have.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<(DType, Range<usize>)> {
        let wrong = |problem: String| Error::format(self.place, problem);
        let info = self.said.info(name);
        let info = info.ok_or_else(|| wrong(format!("lacks the tensor {name}")))?;
        if info.shape != shape {
            let found = &info.shape;
            return Err(wrong(format!(
                "tensor {name} has shape {found:?}, the manifest asks for {shape:?}"
            )));
        }
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(wrong(format!(
                    "tensor {name} holds {other:?}, only F32, F16 and BF16 are read: capture again with one of them"
                )));
            }
        };
        let (start, end) = info.data_offsets;
        Ok((dtype, start..end))
    }
}

fn header_length(bytes: [u8; LENGTH], place: &Path) -> Result<usize> {
    let length = usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    if length <= LONGEST_HEADER {
        return Ok(length);
    }
    let problem =
        format!("its header should have {length} bytes, at most {LONGEST_HEADER} are possible");
    Err(damaged(place, &problem))
}

fn too_short(place: &Path, bytes: usize) -> Error {
    damaged(
        place,
        &format!("it has {bytes} bytes and ends in its header"),
    )
}

fn damaged(place: &Path, problem: &str) -> Error {
    let problem = format!("is damaged or cut short, capture again: {problem}");
    Error::format(place, problem)
}
