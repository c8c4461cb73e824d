//! A Hugging Face checkpoint: safetensors in one file or in shards, mapped into memory.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::TensorSource;
use super::mapped::MappedFile;
use super::names::{STARTS, in_checkpoint, is_foreign};
use super::shard_header;
use crate::compute::finite::all_finite;
use crate::compute::linear::{Matrix, Packed, StoredBytes};
use crate::error::{Error, Result};
use crate::model::config::{Family, RopePairs};
use crate::model::gguf::{WeightMemory, dense_type};
use crate::model::json_fields::JsonFields;
use crate::model::source::{CacheFolder, SafetensorsFolder};

/// The tensors of a folder, whose headers have been read and checked against the files' lengths.
pub(in crate::model) struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Place>,
    /// How the names of the decoder's tensors begin.
    start: &'static str,
    family: Option<Family>,
}

struct Shard {
    path: PathBuf,
    mapped: MappedFile,
}

/// Where a tensor lies.
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Checkpoint {
    /// Maps the files of a folder and reads their headers.
    ///
    /// Errors: as [`SafetensorsFolder::open`]; [`Error::Format`] for a file that is no safetensors file or is cut short, and for shards
    /// that do not hold what the index says.
    pub(in crate::model) fn open(folder: &Path) -> Result<Self> {
        let files = SafetensorsFolder::open(folder)?;
        let mut all = Self {
            folder: files.path,
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            start: STARTS[0],
            family: None,
        };
        for path in files.shards {
            all.add(path)?;
        }
        if let Some(index) = files.index {
            all.check_index(&index)?;
        }
        let has_embedding = |start: &&&str| {
            all.tensors
                .contains_key(&format!("{start}embed_tokens.weight"))
        };
        all.start = STARTS
            .iter()
            .find(has_embedding)
            .copied()
            .unwrap_or(STARTS[0]);
        Ok(all)
    }

    /// Every tensor that the index names must lie in the shard that it names for it.
    fn check_index(&self, index: &Path) -> Result<()> {
        let map = JsonFields::read(index)?;
        let map = map.required("weight_map", map.object("weight_map")?)?;
        for name in map.keys() {
            let shard = map.required(name, map.text(name)?)?;
            let found = self
                .tensors
                .get(name)
                .map(|place| &self.shards[place.shard]);
            if found.and_then(|found| found.path.file_name()) != Some(shard.as_ref()) {
                let problem =
                    format!("says that {shard} holds the tensor {name}, which it does not");
                return Err(Error::format(index, problem));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let mapped = MappedFile::of(&file, &path)?;
        let bytes = &mapped.bytes;
        let damaged = |why: String| {
            let problem = format!(
                "is damaged, truncated or no safetensors file: {why}; download the file again"
            );
            Error::format(&path, problem)
        };
        shard_header::check(bytes).map_err(damaged)?;
        let (header, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let data = header + 8;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: data + start..data + end,
            };
            if place.range.end > bytes.len() {
                return Err(damaged(format!("the tensor {name} ends behind the file")));
            }
            if self.tensors.insert(name.clone(), place).is_some() {
                let problem = format!("holds the tensor {name}, which another shard holds too");
                return Err(Error::format(&path, problem));
            }
        }
        self.shards.push(Shard { path, mapped });
        Ok(())
    }

    /// Takes over what is remembered of the files, and remembers there what will be found.
    pub(in crate::model) fn recall(&mut self, cache: &CacheFolder) {
        for shard in &mut self.shards {
            shard.mapped.finite.recall(cache);
        }
    }

    /// Looks for NaN and infinity in a tensor that was not looked through yet.
    fn check_finite(
        &mut self,
        own: &str,
        shard: usize,
        look: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        let shard = &mut self.shards[shard];
        if shard.mapped.finite.is_finite(own, look)? {
            return Ok(());
        }
        Err(Error::NotFinite {
            place: format!("tensor {own} of {}", shard.path.display()),
            advice: "the weights are damaged; download the file again".into(),
        })
    }

    /// Sets the family, whose names and norms the tensors have.
    pub(in crate::model) fn belong_to(&mut self, family: Family) {
        self.family = Some(family);
    }

    fn own_name(&self, name: &str) -> String {
        match &self.family {
            Some(family) => in_checkpoint(name, self.start, family),
            None => name.to_owned(),
        }
    }

    /// The tensor and its place, which must have this shape.
    fn described(&self, name: &str, shape: &[usize]) -> Result<(String, &Place)> {
        let own = self.own_name(name);
        let Some(place) = self.tensors.get(&own) else {
            let path = &self.shards[0].path;
            return Err(Error::format(path, format!("lacks the tensor {own}")));
        };
        if place.shape != shape {
            let found = &place.shape;
            let problem = format!("tensor {own} has shape {found:?}, expected {shape:?}");
            return Err(Error::format(&self.shards[place.shard].path, problem));
        }
        Ok((own, place))
    }

    fn unpacked(&self, own: &str, place: &Place, device: &Device) -> Result<Tensor> {
        let shard = &self.shards[place.shard];
        let dtype = match place.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(unsupported(own, other, &shard.path)),
        };
        let bytes = &shard.mapped.bytes[place.range.clone()];
        Ok(Tensor::from_raw_buffer(bytes, dtype, &place.shape, device)?)
    }
}

fn unsupported(own: &str, dtype: Dtype, path: &Path) -> Error {
    Error::Unsupported {
        what: "number format",
        found: format!("{dtype:?} of tensor {own} in {}", path.display()),
        supported: "F32, F16 and BF16, and GGUF files for quantised weights".into(),
    }
}

/// The format in which a checkpoint's numbers are multiplied as they lie in the file.
fn packed_format(dtype: Dtype, width: usize, device: &Device) -> Option<GgmlDType> {
    let format = match dtype {
        Dtype::F16 => GgmlDType::F16,
        Dtype::BF16 => GgmlDType::BF16,
        _ => return None,
    };
    (device.is_cpu() && Packed::takes(format, width)).then_some(format)
}

impl TensorSource for Checkpoint {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(&self.own_name(name))
    }

    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
        dtype: DType,
    ) -> Result<Tensor> {
        let (own, place) = self.described(name, shape)?;
        let mut tensor = self.unpacked(&own, place, device)?.to_dtype(DType::F32)?;
        let shard = place.shard;
        self.check_finite(&own, shard, || all_finite(&tensor))?;
        let from_one = self.family.is_some_and(|family| family.norms_from_one);
        if from_one && own.ends_with("norm.weight") {
            tensor = (tensor + 1.0)?;
        }
        Ok(tensor.to_dtype(dtype)?)
    }

    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Matrix> {
        let (own, place) = self.described(name, &[rows, width])?;
        let Some(format) = packed_format(place.dtype, width, device) else {
            let dtype = dense_type(device, dtype);
            return Ok(Matrix::Dense(self.tensor(
                name,
                &[rows, width],
                device,
                dtype,
            )?));
        };
        let bytes = self.shards[place.shard].mapped.bytes.clone();
        let bytes = StoredBytes::Mapped(bytes, place.range.clone());
        let packed = Packed::new(format, bytes, rows, width).ok_or_else(|| {
            let path = &self.shards[place.shard].path;
            Error::format(path, format!("tensor {own} has a partial block"))
        })?;
        let shard = place.shard;
        self.check_finite(&own, shard, || Ok(packed.is_finite()))?;
        Ok(Matrix::Packed(packed.for_products_in(dtype)))
    }

    fn rope_pairs(&self, _: &Family) -> RopePairs {
        RopePairs::Halves
    }

    fn inventory(&self) -> Vec<(String, u64, u64)> {
        let tensors = self.tensors.values();
        tensors
            .map(|place| {
                let numbers: usize = place.shape.iter().product();
                let bytes = place.range.len() as u64;
                (format!("{:?}", place.dtype), numbers as u64, bytes)
            })
            .collect()
    }

    fn place(&self) -> &Path {
        &self.folder
    }

    fn leftovers(&self, taken: &HashSet<String>) -> Vec<String> {
        let taken: HashSet<String> = taken.iter().map(|name| self.own_name(name)).collect();
        let names = self.tensors.keys();
        // A head that shares the embedding's weights is sometimes written out all the same.
        let left = |name: &&String| {
            !taken.contains(*name) && !is_foreign(name) && !name.ends_with("lm_head.weight")
        };
        names.filter(left).cloned().collect()
    }

    fn remember_finite(&mut self) {
        for shard in &mut self.shards {
            shard.mapped.finite.finish();
        }
    }

    fn weight_memory(&self, device: &Device, dtype: DType) -> WeightMemory {
        let tensors = self.tensors.iter().filter(|(name, _)| !is_foreign(name));
        WeightMemory::of(tensors.map(|(name, place)| {
            let numbers: usize = place.shape.iter().product();
            match *place.shape {
                [_, width] if packed_format(place.dtype, width, device).is_some() => {
                    (name.as_str(), place.range.len(), 0)
                }
                _ => {
                    let held = numbers * dense_type(device, dtype).size_in_bytes();
                    (name.as_str(), held, place.range.len() + 2 * 4 * numbers)
                }
            }
        }))
    }
}
