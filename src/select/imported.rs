//! Scores, or kept tokens, that another program made: files of tensors, found by the prompt's token ids.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::load;
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::{LayerObservation, LayerScores, Needs, Scorer, Slots};
use crate::budget::CacheBudget;
use crate::error::{Error, Result};
use crate::files::sha256_hex;

/// What a file of another program says of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imports {
    /// How much every token matters to every KV head: `scores`.
    Scores,
    /// Which tokens every KV head keeps: `kept`, 1 for a token that stays.
    Kept,
}

impl Imports {
    fn tensor(self) -> &'static str {
        match self {
            Self::Scores => "scores",
            Self::Kept => "kept",
        }
    }
}

/// Files of another program, one prompt each: `ids` `[T]`, and `scores` or `kept` `[L, H_kv, T]`.
///
/// Files are found by the token ids inside, whatever they are called, so that scores of another tokenisation or of another
/// prompt are never taken.
///
/// Paper: none: house definition.
#[derive(Clone, Debug)]
pub struct ScoreFiles {
    found: Arc<Found>,
    budget: Option<CacheBudget>,
}

#[derive(Debug)]
struct Found {
    /// The file or folder, as it was named.
    place: PathBuf,
    imports: Imports,
    /// File and token ids by the digest of the ids.
    prompts: BTreeMap<String, (PathBuf, Vec<u32>)>,
    /// Digest over all files.
    sha256: String,
}

impl ScoreFiles {
    /// Finds the files of a folder, or takes the one file, and reads their token ids.
    ///
    /// Errors: [`Error::Io`]; [`Error::Format`] for a folder without such a file, a file without `ids` or with neither
    /// `scores` nor `kept`, files of both kinds, or two for the same prompt.
    pub fn open(place: &Path) -> Result<Self> {
        let mut paths = vec![place.to_owned()];
        if place.is_dir() {
            let entries = std::fs::read_dir(place).map_err(|e| Error::io("read", place, e))?;
            let entries =
                entries.map(|entry| Ok(entry.map_err(|e| Error::io("read", place, e))?.path()));
            paths = entries.collect::<Result<_>>()?;
            paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
            paths.sort();
        }
        let mut prompts: BTreeMap<String, (PathBuf, Vec<u32>)> = BTreeMap::new();
        let mut kind: Option<Imports> = None;
        let mut digests = Vec::new();
        for path in paths {
            let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
            digests.push(sha256_hex(&bytes));
            let tensors = Tensors::read(&path)?;
            let imports = tensors.imports()?;
            if *kind.get_or_insert(imports) != imports {
                let problem = "has kept tokens where files before it have scores, or scores where they have kept tokens";
                return Err(Error::format(&path, problem));
            }
            let ids = tensors.ids()?;
            if let Some((other, _)) = prompts.get(&digest(&ids)) {
                let problem = format!("is of the same prompt as {}", other.display());
                return Err(Error::format(&path, problem));
            }
            prompts.insert(digest(&ids), (path, ids));
        }
        // What files are called says nothing, and so does their order.
        digests.sort();
        let Some(imports) = kind else {
            return Err(Error::format(
                place,
                "is a folder without a .safetensors file",
            ));
        };
        Ok(Self {
            found: Arc::new(Found {
                place: place.to_owned(),
                imports,
                prompts,
                sha256: sha256_hex(digests.join("\n").as_bytes()),
            }),
            budget: None,
        })
    }

    /// The same with the budget that its kept tokens are compared at.
    #[must_use]
    pub fn at(self, budget: Option<CacheBudget>) -> Self {
        Self { budget, ..self }
    }

    /// The budget that its kept tokens are compared at.
    pub fn budget(&self) -> Option<CacheBudget> {
        self.budget
    }

    /// What the files say.
    pub fn imports(&self) -> Imports {
        self.found.imports
    }

    /// Refuses a prompt without a file, or whose file is of another model; gives the mean that a KV head keeps, where files
    /// say what is kept.
    ///
    /// Errors: [`Error::Invalid`] that says where the nearest file differs; [`Error::Format`] as [`ScoreFiles::scores`].
    pub fn check(
        &self,
        prompt: &str,
        ids: &[u32],
        layers: usize,
        kv_heads: usize,
    ) -> Result<Option<f64>> {
        if self.found.prompts.contains_key(&digest(ids)) {
            let scores = self.scores(ids, &Device::Cpu, layers, kv_heads)?;
            if self.imports() == Imports::Scores {
                return Ok(None);
            }
            let mut kept = 0.0;
            for layer in &scores {
                kept += layer.to_rows()?.iter().flatten().sum::<f64>();
            }
            return Ok(Some(kept / (layers * kv_heads).max(1) as f64));
        }
        let common = |theirs: &[u32]| theirs.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let nearest = self
            .found
            .prompts
            .values()
            .max_by_key(|(_, theirs)| common(theirs));
        let nearest = nearest.map_or(String::new(), |(path, theirs)| {
            format!(
                "; the nearest, {}, has {} and differs from token {} on",
                path.display(),
                theirs.len(),
                common(theirs)
            )
        });
        let bound = format!(
            "no file of {} is of its {} tokens{nearest}: make it from the token ids of `kvprof eval --write-prompts`",
            self.found.place.display(),
            ids.len()
        );
        Err(Error::invalid("prompt", prompt, bound))
    }

    /// The scores of a prompt, layer by layer; kept tokens have 1, others 0.
    ///
    /// Errors: [`Error::Invalid`] for a prompt without a file; [`Error::Format`] for another shape, or numbers that are not
    /// finite.
    pub fn scores(
        &self,
        ids: &[u32],
        device: &Device,
        layers: usize,
        kv_heads: usize,
    ) -> Result<Vec<LayerScores>> {
        let Some((path, _)) = self.found.prompts.get(&digest(ids)) else {
            let bound = format!(
                "no file of {} has these token ids",
                self.found.place.display()
            );
            return Err(Error::invalid(
                "prompt",
                format!("one of {} tokens", ids.len()),
                bound,
            ));
        };
        let name = self.found.imports.tensor();
        let tensor = Tensors::read(path)?.named(name)?.to_dtype(DType::F64)?;
        if tensor.dims() != [layers, kv_heads, ids.len()] {
            let problem = format!(
                "has {name} of {:?}: layers, KV heads and tokens are {:?} here",
                tensor.dims(),
                [layers, kv_heads, ids.len()]
            );
            return Err(Error::format(path, problem));
        }
        let of_layer = |layer: usize| {
            let rows: Vec<f64> = tensor.get(layer)?.flatten_all()?.to_vec1()?;
            if rows.iter().any(|score| !score.is_finite()) {
                let problem = format!(
                    "has {name} of layer {layer} that are not finite: give what must stay or go a large or small number"
                );
                return Err(Error::format(path, problem));
            }
            if self.found.imports == Imports::Kept && rows.iter().any(|k| *k != 0.0 && *k != 1.0) {
                let problem = format!("has kept of layer {layer} that is neither 0 nor 1");
                return Err(Error::format(path, problem));
            }
            let mut heads = rows.chunks(ids.len().max(1));
            if self.found.imports == Imports::Kept
                && heads.any(|head| head.iter().all(|k| *k == 0.0))
            {
                let problem =
                    format!("keeps no token of a KV head of layer {layer}: attention needs one");
                return Err(Error::format(path, problem));
            }
            LayerScores::of_heads(rows, kv_heads, device)
        };
        (0..layers).map(of_layer).collect()
    }
}

/// The tensors of a file.
struct Tensors<'a> {
    path: &'a Path,
    all: std::collections::HashMap<String, Tensor>,
}

impl<'a> Tensors<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let all = load(path, &Device::Cpu);
        let all = all.map_err(|e| {
            let types =
                "u8, i64 and floats of 16 to 64 bits can be read, bool cannot: write kept as u8";
            Error::format(
                path,
                format!("is no readable safetensors file ({types}): {e}"),
            )
        })?;
        Ok(Self { path, all })
    }

    fn named(&self, name: &str) -> Result<&Tensor> {
        self.all.get(name).ok_or_else(|| {
            let problem = format!(
                "has no tensor '{name}': ids [T] and scores or kept [L, H_kv, T] are expected"
            );
            Error::format(self.path, problem)
        })
    }

    fn imports(&self) -> Result<Imports> {
        match (
            self.all.contains_key("scores"),
            self.all.contains_key("kept"),
        ) {
            (true, true) => Err(Error::format(
                self.path,
                "has both scores and kept: one says what stays",
            )),
            (false, true) => Ok(Imports::Kept),
            _ => self.named("scores").map(|_| Imports::Scores),
        }
    }

    fn ids(&self) -> Result<Vec<u32>> {
        let ids = self.named("ids")?;
        if !ids.dtype().is_int() || ids.rank() != 1 {
            let problem = format!(
                "has ids of {:?} {:?}: whole numbers [T] are expected",
                ids.dtype(),
                ids.dims()
            );
            return Err(Error::format(self.path, problem));
        }
        let ids = ids.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let whole = ids.iter().map(|id| u32::try_from(*id).map_err(|_| id));
        whole.collect::<std::result::Result<_, _>>().map_err(|id| {
            Error::format(
                self.path,
                format!("has the token id {id}, which no vocabulary has"),
            )
        })
    }
}

/// Digest of token ids.
fn digest(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    sha256_hex(&bytes)
}

/// A scorer whose scores were made elsewhere.
///
/// Paper: none: house definition. Differs: it scores no prompt by itself.
#[derive(Clone, Debug)]
pub struct Imported(pub ScoreFiles);

impl Scorer for Imported {
    fn parameters(&self) -> Value {
        json!({
            "imported": self.0.imports().tensor(), "sha256": self.0.found.sha256,
            "budget": self.0.budget.map(|budget| budget.to_string()),
        })
    }

    fn needs(&self, _: usize) -> Needs {
        Needs::default()
    }

    fn imported(&self) -> Option<&ScoreFiles> {
        Some(&self.0)
    }

    fn score(&self, _: &LayerObservation<'_>) -> Result<LayerScores> {
        let bound = "its scores are those of a file, which are found by the prompt's token ids";
        Err(Error::invalid("scorer", "imported", bound))
    }
}

/// The tokens that files say are kept, from the first slot on that each layer still sees.
///
/// Shapes: `[layer][kv_head][slot]`, ascending. Errors: [`Error::Invalid`] for a KV head that would keep nothing in sight.
pub fn kept_slots(scores: &[LayerScores], firsts: &[usize]) -> Result<Vec<Slots>> {
    let of_layer = |(layer, (scores, &first)): (usize, (&LayerScores, &usize))| {
        let of_head = |row: Vec<f64>| {
            let kept = (first..row.len()).filter(|slot| row[*slot] > 0.0);
            kept.map(|slot| slot as u32).collect::<Vec<u32>>()
        };
        let slots: Slots = scores.to_rows()?.into_iter().map(of_head).collect();
        if slots.iter().any(Vec::is_empty) {
            let bound = format!(
                "layer {layer} sees tokens from {first} on, and every KV head must keep one of them"
            );
            return Err(Error::invalid(
                "kept tokens of a file",
                "none in sight",
                bound,
            ));
        }
        Ok(slots)
    };
    scores
        .iter()
        .zip(firsts)
        .enumerate()
        .map(of_layer)
        .collect()
}
