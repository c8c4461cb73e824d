//! Taking a decoder's tensors out of the files they came in, every one of them.

mod checkpoint;
mod finite_checks;
mod gguf_file;
mod mapped;
mod names;
mod shard_header;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

pub(super) use checkpoint::Checkpoint;
pub(super) use mapped::MappedFile;
pub(crate) use shard_header::check_places as check_tensor_places;

use super::config::{Family, RopePairs};
use super::gguf::{WeightMemory, dense_type};
use super::precision::Precision;
use crate::compute::linear::{Linear, Matrix, Products};
use crate::error::{Error, Result};

/// Files of tensors, which are asked for by the names that GGUF files give them.
pub trait TensorSource {
    /// Whether a tensor is there.
    fn has(&self, name: &str) -> bool;

    /// A tensor of this shape, unpacked.
    ///
    /// Errors: [`Error::Format`] if it is missing or of another shape, [`Error::NotFinite`].
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
        dtype: DType,
    ) -> Result<Tensor>;

    /// A matrix, packed as it lies in the file where products can be computed so; `dtype` is the model's.
    ///
    /// Errors: as [`TensorSource::tensor`].
    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Matrix>;

    /// How queries and keys of a family lie in these files.
    fn rope_pairs(&self, family: &Family) -> RopePairs;

    /// Where they lie, for messages.
    fn place(&self) -> &Path;

    /// Tensors that are not among those that were `taken`, by their own names.
    fn leftovers(&self, taken: &HashSet<String>) -> Vec<String>;

    /// Remembers which tensors were found finite.
    fn remember_finite(&mut self);

    /// What all tensors will take on a device.
    fn weight_memory(&self, device: &Device, dtype: DType) -> WeightMemory;

    /// Format, numbers and bytes of every tensor.
    fn inventory(&self) -> Vec<(String, u64, u64)>;

    /// The tensors by format, those with most bytes first.
    fn groups(&self) -> Vec<TensorGroup> {
        let mut groups: BTreeMap<String, TensorGroup> = BTreeMap::new();
        for (name, parameters, bytes) in self.inventory() {
            let group = groups.entry(name.clone()).or_insert(TensorGroup {
                name,
                ..TensorGroup::default()
            });
            group.tensors += 1;
            group.parameters = group.parameters.saturating_add(parameters);
            group.bytes = group.bytes.saturating_add(bytes);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.bytes));
        groups
    }
}

/// Tensors of one number format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorGroup {
    /// The format, as the files call it.
    pub name: String,
    /// How many there are.
    pub tensors: usize,
    /// Their numbers.
    pub parameters: u64,
    /// Their bytes in the files.
    pub bytes: u64,
}

/// Reads the tensors of a model and remembers which were taken.
pub(super) struct Weights<'a> {
    source: &'a mut dyn TensorSource,
    device: &'a Device,
    dtype: DType,
    products: Products,
    /// Whether a matrix that was read multiplies integers.
    as_integers: bool,
    /// That of activations, and so of what is added to them or multiplied with them by element.
    activations: DType,
    taken: HashSet<String>,
    /// Projections, by what stands before `.weight`: what else of their name is there is their bias.
    linear: HashSet<String>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(
        source: &'a mut dyn TensorSource,
        device: &'a Device,
        precision: Precision,
    ) -> Self {
        Self {
            source,
            device,
            dtype: precision.dtype,
            products: precision.products,
            as_integers: false,
            activations: dense_type(device, precision.dtype),
            taken: HashSet::new(),
            linear: HashSet::new(),
        }
    }

    pub(super) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.taken.insert(name.to_owned());
        (self.source).tensor(name, shape, self.device, self.activations)
    }

    pub(super) fn matrix(&mut self, name: &str, rows: usize, width: usize) -> Result<Matrix> {
        self.taken.insert(name.to_owned());
        let matrix = (self.source).matrix(name, rows, width, self.device, self.dtype)?;
        let matrix = matrix.multiplied_as(self.products);
        self.as_integers |= matrix.multiplies_integers();
        Ok(matrix)
    }

    pub(super) fn linear(&mut self, name: &str, out: usize, width: usize) -> Result<Linear> {
        self.linear.insert(name.to_owned());
        let matrix = self.matrix(&format!("{name}.weight"), out, width)?;
        let bias_name = format!("{name}.bias");
        let bias = if self.source.has(&bias_name) {
            Some(self.tensor(&bias_name, &[out])?)
        } else {
            None
        };
        Ok(Linear { matrix, bias })
    }

    /// A projection whose bias must be there.
    pub(super) fn biased(&mut self, name: &str, out: usize, width: usize) -> Result<Linear> {
        self.linear.insert(name.to_owned());
        let matrix = self.matrix(&format!("{name}.weight"), out, width)?;
        let bias = Some(self.tensor(&format!("{name}.bias"), &[out])?);
        Ok(Linear { matrix, bias })
    }

    pub(super) fn rope_pairs(&self, family: &Family) -> RopePairs {
        self.source.rope_pairs(family)
    }

    /// Counts the tensors of all `layers` as taken that have one of the same name in the first, which was; what a layer adds
    /// to projections is its own affair.
    ///
    /// Errors: [`Error::Format`] for a layer that lacks a tensor which the first one has.
    pub(super) fn take_layers_like_the_first(&mut self, layers: usize) -> Result<()> {
        let of_first: Vec<String> = (self.taken.iter())
            .filter_map(|name| {
                Some(
                    name.strip_prefix("blk.0.")?
                        .strip_suffix(".weight")?
                        .to_owned(),
                )
            })
            .collect();
        for layer in 1..layers {
            for part in &of_first {
                let [weight, bias] =
                    ["weight", "bias"].map(|kind| format!("blk.{layer}.{part}.{kind}"));
                if !self.source.has(&weight) {
                    let problem = format!("lacks the tensor {weight} (as GGUF files call it)");
                    return Err(Error::format(self.source.place(), problem));
                }
                self.taken.insert(weight);
                if self.linear.contains(&format!("blk.0.{part}")) && self.source.has(&bias) {
                    self.taken.insert(bias);
                }
            }
        }
        Ok(())
    }

    /// Remembers what was found of the tensors that have been read, where that did not end with [`Self::refuse_leftovers`].
    pub(super) fn remember_finite(&mut self) {
        self.source.remember_finite();
    }

    /// A tensor that nobody asked for would be a part of the model that is silently left out, and integer products that no
    /// matrix takes would be claimed and not done.
    ///
    /// Without either, what was found of those that have been read is remembered.
    pub(super) fn refuse_leftovers(&mut self) -> Result<()> {
        if self.products != Products::Float32 && !self.as_integers {
            return Err(Error::Unsupported {
                what: "--products",
                found: format!("{} with {}", self.products, self.source.place().display()),
                supported: "f32, since none of its matrices is quantised; GGUF files of quantised ones have integers"
                    .into(),
            });
        }
        let mut leftovers = self.source.leftovers(&self.taken);
        leftovers.truncate(4);
        if leftovers.is_empty() {
            self.source.remember_finite();
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "tensor",
            found: format!(
                "{} in {}",
                leftovers.join(", "),
                self.source.place().display()
            ),
            supported: "the tensors of a plain decoder of this family".into(),
        })
    }
}
