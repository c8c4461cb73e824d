//! Reading a mapped GGUF file: typed metadata, tensors dequantised or where they lie, safe on any byte string.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::{DType, Device, Tensor};

use super::alignment;
use super::source::CacheFolder;
use super::weights::MappedFile;
use crate::compute::finite::all_finite;
use crate::compute::linear::{Matrix, Packed, StoredBytes};
use crate::error::{Error, Result};

/// An open GGUF file whose header has been read and checked against the file's length.
///
/// Paper: none: house definition. Differs: candle's reader, plus the checks that it leaves out
/// (alignment zero, element counts that overflow, tensors that end after the file).
pub struct Gguf {
    path: PathBuf,
    content: Content,
    mapped: MappedFile,
}

impl Gguf {
    /// Maps `path` and reads its header.
    ///
    /// Errors: [`Error::Io`], or [`Error::Format`] for a file that is not a whole GGUF.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, _) = Self::check_magic(path)?;
        let mapped = MappedFile::of(&file, path)?;
        let bytes = &mapped.bytes[..];
        if alignment::declared(&mut &*bytes) == Some(0) {
            // candle divides by it without looking.
            return Err(Error::format(path, "declares an alignment of zero"));
        }
        let content = Content::read(&mut Cursor::new(bytes)).map_err(|e| {
            // What follows may be a backtrace.
            let text = e.to_string();
            let why = text.lines().next().unwrap_or_default();
            let problem = format!("is damaged, truncated or of an unknown kind: {why}");
            Error::format(path, problem)
        })?;
        let length = bytes.len() as u64;
        let gguf = Self {
            path: path.to_owned(),
            content,
            mapped,
        };
        gguf.check_extents(length)?;
        Ok(gguf)
    }

    /// Takes over what is remembered of the file, and remembers there what will be found.
    pub(super) fn recall(&mut self, cache: &CacheFolder) {
        self.mapped.finite.recall(cache);
    }

    /// Remembers what was found of its tensors.
    pub(super) fn remember_finite(&mut self) {
        self.mapped.finite.finish();
    }

    /// Opens `path` and reads its first letters, before anything slow is done with it.
    ///
    /// Errors: [`Error::Io`], or [`Error::Format`] for what is not a regular file or not a GGUF.
    pub(super) fn check_magic(path: &Path) -> Result<(File, u64)> {
        let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let meta = file.metadata().map_err(|e| Error::io("inspect", path, e))?;
        if !meta.is_file() {
            return Err(Error::format(path, "is no regular file, so no GGUF file"));
        }
        let mut magic = Vec::new();
        let read = (&mut file).take(4).read_to_end(&mut magic);
        read.map_err(|e| Error::io("read", path, e))?;
        if magic != b"GGUF" {
            let problem = "is not a GGUF file (it does not start with the letters GGUF)";
            return Err(Error::format(path, problem));
        }
        Ok((file, meta.len()))
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor must lie inside the file and have a size that can be computed.
    fn check_extents(&self, file_len: u64) -> Result<()> {
        // By name, so that the same file always gets the same error.
        for name in self.tensor_names() {
            let info = &self.content.tensor_infos[name];
            let elements = (info.shape.dims().iter())
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .filter(|n| *n < 1 << 48)
                .ok_or_else(|| self.wrong(format!("tensor {name} has an impossible shape")))?;
            let format = info.ggml_dtype;
            let bytes = elements.div_ceil(format.block_size()) * format.type_size();
            let start = self.content.tensor_data_offset.checked_add(info.offset);
            let end = start.and_then(|start| start.checked_add(bytes as u64));
            if end.is_none_or(|end| end > file_len) {
                return Err(self.wrong(format!(
                    "is truncated: tensor {name} should end at byte {}, the file has {file_len}; \
                     download it again",
                    end.map_or("2^64".to_owned(), |e| e.to_string())
                )));
            }
        }
        Ok(())
    }

    /// The raw metadata value of `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// An [`Error::Format`] of this file.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::format(&self.path, problem)
    }

    /// An [`Error::Format`] for a field that should be there, of that kind.
    pub(super) fn missing(&self, key: &str, kind: &str) -> Error {
        self.wrong(format!("lacks the metadata field {key} ({kind})"))
    }

    /// An unsigned integer, whatever width it was stored in.
    pub fn uint_opt(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::I8(v) => u64::try_from(*v).ok(),
            Value::I16(v) => u64::try_from(*v).ok(),
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            other => other.to_u64().ok(),
        }
    }

    /// A required unsigned integer.
    pub fn uint(&self, key: &str) -> Result<usize> {
        self.uint_opt(key)
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| self.missing(key, "an unsigned integer"))
    }

    /// Refuses a field that is there and is not of the type it should have.
    ///
    /// Errors: [`Error::Format`]; a default must never stand in for a value that was not understood.
    pub fn understood<T>(&self, key: &str, value: Option<T>) -> Result<Option<T>> {
        match self.value(key) {
            Some(found) if value.is_none() => Err(self.wrong(format!(
                "has a metadata field {key} of an unexpected type ({:?})",
                found.value_type()
            ))),
            _ => Ok(value),
        }
    }

    /// A float, also where it was stored as an integer.
    pub fn float_opt(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            Value::F32(v) => Some(f64::from(*v)),
            Value::F64(v) => Some(*v),
            _ => self.uint_opt(key).map(|v| v as f64),
        }
    }

    /// A boolean.
    pub fn bool_opt(&self, key: &str) -> Option<bool> {
        self.value(key)?.to_bool().ok()
    }

    /// A string.
    pub fn text_opt(&self, key: &str) -> Option<&str> {
        self.value(key)?.to_string().ok().map(String::as_str)
    }

    /// A required string.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.text_opt(key)
            .ok_or_else(|| self.missing(key, "a string"))
    }

    /// An array.
    pub fn array_opt(&self, key: &str) -> Option<&[Value]> {
        self.value(key)?.to_vec().ok().map(Vec::as_slice)
    }

    /// Whether a tensor of this name is in the file.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// The names of all tensors, sorted.
    pub fn tensor_names(&self) -> Vec<&str> {
        let names = self.content.tensor_infos.keys();
        let mut names: Vec<_> = names.map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Reads a tensor and dequantises it.
    ///
    /// Shapes: `shape` is what the model's configuration says the tensor must have.
    /// Errors: [`Error::Format`] if it is missing or of another shape, [`Error::NotFinite`].
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
        dtype: DType,
    ) -> Result<Tensor> {
        self.described(name, shape)?;
        let tensor = self
            .content
            .tensor(&mut Cursor::new(&self.mapped.bytes[..]), name, device)
            .and_then(|quantised| quantised.dequantize(device))
            .map_err(|e| self.wrong(format!("tensor {name}: {e}")))?;
        self.check_finite(name, || all_finite(&tensor))?;
        Ok(tensor.to_dtype(dtype)?)
    }

    /// A matrix, packed where it lies in the file if its kernels can work on it, on the CPU; what stays dense there is float32.
    ///
    /// `dtype` is the model's; see [`super::decoder::Decoder::load`].
    /// Shapes and errors: as [`Gguf::tensor`].
    pub fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Matrix> {
        let info = self.described(name, &[rows, width])?;
        let format = info.ggml_dtype;
        if !stays_packed(format, width, device) {
            let dtype = dense_type(device, dtype);
            let dense = self.tensor(name, &[rows, width], device, dtype)?;
            return Ok(Matrix::Dense(dense));
        }
        let bytes = StoredBytes::Mapped(self.mapped.bytes.clone(), self.range_of(info));
        let packed = Packed::new(format, bytes, rows, width)
            .ok_or_else(|| self.wrong(format!("tensor {name} has a partial block")))?;
        self.check_finite(name, || Ok(packed.is_finite()))?;
        Ok(Matrix::Packed(packed.for_products_in(dtype)))
    }

    /// Format, numbers and bytes of every tensor.
    pub(super) fn inventory(&self) -> Vec<(String, u64, u64)> {
        let tensors = self.content.tensor_infos.values();
        tensors
            .map(|info| {
                let (format, numbers) = (info.ggml_dtype, info.shape.elem_count());
                let bytes = packed_bytes(format, numbers);
                (format!("{format:?}"), numbers as u64, bytes as u64)
            })
            .collect()
    }

    /// What all tensors will take on a device.
    pub(super) fn weight_memory(&self, device: &Device, dtype: DType) -> WeightMemory {
        let tensors = self.content.tensor_infos.iter();
        WeightMemory::of(tensors.map(|(name, info)| {
            let (format, numbers) = (info.ggml_dtype, info.shape.elem_count());
            let packed = packed_bytes(format, numbers);
            match info.shape.dims() {
                [_, width] if stays_packed(format, *width, device) => (name.as_str(), packed, 0),
                _ => {
                    let held = numbers * dense_type(device, dtype).size_in_bytes();
                    // The file's bytes, and float32 numbers before they are converted.
                    (name.as_str(), held, packed + 2 * 4 * numbers)
                }
            }
        }))
    }

    /// What the header says of a tensor, which must have this shape.
    fn described(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let info = self.content.tensor_infos.get(name);
        let info = info.ok_or_else(|| self.wrong(format!("lacks the tensor {name}")))?;
        let found = info.shape.dims();
        if found != shape {
            let problem = format!("tensor {name} has shape {found:?}, expected {shape:?}");
            return Err(self.wrong(problem));
        }
        Ok(info)
    }

    /// Where a tensor lies; its size was bounded, and its end compared with the file, when that was opened.
    fn range_of(&self, info: &TensorInfo) -> Range<usize> {
        let start = (self.content.tensor_data_offset + info.offset) as usize;
        start..start + packed_bytes(info.ggml_dtype, info.shape.elem_count())
    }

    /// Looks for NaN and infinity in a tensor that was not looked through yet.
    fn check_finite(&mut self, name: &str, look: impl FnOnce() -> Result<bool>) -> Result<()> {
        if self.mapped.finite.is_finite(name, look)? {
            return Ok(());
        }
        Err(Error::NotFinite {
            place: format!("tensor {name} of {}", self.path.display()),
            advice: "the weights are damaged; download the file again".into(),
        })
    }
}

/// Bytes of the weights of a model before they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightMemory {
    /// All, as they will lie in memory.
    pub held: usize,
    /// What reading the largest of them takes besides, while it is unpacked.
    pub unpacking: usize,
    /// The largest part that is of use by itself: a layer, the embedding or the output head.
    pub largest: usize,
}

impl WeightMemory {
    /// Of tensors by name, with what each takes in memory and while it is unpacked.
    pub(super) fn of<'a>(tensors: impl Iterator<Item = (&'a str, usize, usize)>) -> Self {
        let (mut memory, mut parts) = (Self::default(), BTreeMap::<String, usize>::new());
        for (name, held, unpacking) in tensors {
            memory.held += held;
            memory.unpacking = memory.unpacking.max(unpacking);
            let layer = name.split_once("layers.").or(name.split_once("blk."));
            let layer = layer.and_then(|(_, rest)| rest.split('.').next());
            *parts.entry(layer.unwrap_or(name).to_owned()).or_default() += held;
        }
        memory.largest = parts.into_values().max().unwrap_or(0);
        memory
    }
}

/// What so many numbers take in a file.
fn packed_bytes(format: GgmlDType, numbers: usize) -> usize {
    numbers / format.block_size() * format.type_size()
}

/// Whether a matrix of so wide rows is kept as it lies in the file.
fn stays_packed(format: GgmlDType, width: usize, device: &Device) -> bool {
    device.is_cpu() && Packed::takes(format, width)
}

/// The element type of activations, and of tensors that do not stay packed, in a model of type `dtype`.
pub(super) fn dense_type(device: &Device, dtype: DType) -> DType {
    if device.is_cpu() { DType::F32 } else { dtype }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{QTensor, gguf_file};

    #[test]
    fn every_quantisation_is_read_as_candle_dequantises_it() {
        use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let values: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin()).collect();
        let tensor = Tensor::from_vec(values, (2, 256), &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for kind in [
            F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K,
        ] {
            let quantised = QTensor::quantize(&tensor, kind).unwrap();
            let path = folder.path().join("t.gguf");
            let mut file = File::create(&path).unwrap();
            gguf_file::write(&mut file, &[], &[("t", &quantised)]).unwrap();
            let mut gguf = Gguf::open(&path).unwrap();
            let read = gguf
                .tensor("t", &[2, 256], &Device::Cpu, DType::F32)
                .unwrap();
            let want = quantised.dequantize(&Device::Cpu).unwrap();
            assert_eq!(
                read.to_vec2::<f32>().unwrap(),
                want.to_vec2::<f32>().unwrap(),
                "{kind:?}"
            );
            let matrix = |gguf: &mut Gguf, dtype| gguf.matrix("t", 2, 256, &Device::Cpu, dtype);
            let matrix = [DType::F32, DType::BF16].map(|dtype| matrix(&mut gguf, dtype).unwrap());
            for matrix in matrix {
                let packed = matches!(matrix, Matrix::Packed(_));
                assert_eq!(packed, kind != F32, "{kind:?}");
                assert_eq!(
                    matrix.dense().unwrap().to_vec2::<f32>().unwrap(),
                    want.to_vec2::<f32>().unwrap(),
                    "{kind:?}"
                );
            }
            let shape = gguf.tensor("t", &[256, 2], &Device::Cpu, DType::F32);
            assert!(shape.unwrap_err().to_string().contains("has shape"));
            let name = gguf.tensor("u", &[2, 256], &Device::Cpu, DType::F32);
            assert!(name.unwrap_err().to_string().contains("lacks the tensor u"));
        }
    }

    #[test]
    fn a_packed_matrix_with_an_infinite_scale_is_named() {
        let values = vec![f32::INFINITY; 64];
        let tensor = Tensor::from_vec(values, (2, 32), &Device::Cpu).unwrap();
        let quantised = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.gguf");
        let mut file = File::create(&path).unwrap();
        gguf_file::write(&mut file, &[], &[("t", &quantised)]).unwrap();
        let mut gguf = Gguf::open(&path).unwrap();
        let read = gguf.matrix("t", 2, 32, &Device::Cpu, DType::F32);
        let error = read.err().unwrap();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        assert!(error.to_string().contains("tensor t of"), "{error}");
    }

    #[test]
    fn what_is_not_a_gguf_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Gguf::open(folder.path()).is_err());
        assert!(Gguf::open(&folder.path().join("missing")).is_err());
    }
}
