//! What budgets are worked out for: a model, a prompt length, and what always stays.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::budget::{
    Budget, Floor, Geometry, Measures, Provenance, Request, longest_prompt, profile_digest,
};
use kvprof::model::cache::Representation;
use kvprof::profile::{Needs, Profile};

use super::load;

/// Arguments that several verbs share.
#[derive(Debug, clap::Args)]
pub struct ReferenceArguments {
    /// Profile folder of the model
    #[arg(long, value_name = "FOLDER")]
    pub profile: Option<PathBuf>,
    /// Model instead of a profile, for what needs no measurements; its weights are not loaded
    #[arg(long, conflicts_with = "profile")]
    pub model: Option<String>,
    #[command(flatten)]
    pub terms: load::AcceptedTerms,
    /// Prompt length T to work out tokens for; by default the profile's longest prompt
    #[arg(long, value_name = "T")]
    pub tokens: Option<usize>,
    /// First tokens of a prompt that always stay [default: 4]
    #[arg(long, value_name = "TOKENS")]
    pub sinks: Option<usize>,
    /// Last tokens of a prompt that always stay [default: 32]
    #[arg(long, value_name = "TOKENS")]
    pub window: Option<usize>,
    #[command(flatten)]
    pub windows: WindowArguments,
}

/// What becomes of layers that see a window only.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct WindowArguments {
    /// Layers with a sliding window keep all that they see, and take no part in the budget
    #[arg(long)]
    pub whole_windows: bool,
}

impl WindowArguments {
    /// A floor with what was asked for such layers.
    pub fn of(self, floor: Floor) -> Floor {
        Floor {
            whole_windows: self.whole_windows,
            ..floor
        }
    }
}

/// A model, a prompt length and what always stays of it.
pub struct Reference {
    /// The model.
    pub geometry: Geometry,
    /// Its measurements and their folder.
    pub profile: Option<(PathBuf, Profile)>,
    /// T.
    pub tokens: usize,
    /// Sinks and window.
    pub floor: Floor,
}

impl ReferenceArguments {
    /// Whether a model was named.
    pub fn names_a_model(&self) -> bool {
        self.profile.is_some() || self.model.is_some()
    }

    /// Sinks and window, the given ones or `otherwise`.
    pub fn floor(&self, otherwise: Option<Floor>) -> anyhow::Result<Floor> {
        let otherwise = otherwise.unwrap_or(Floor::of(Floor::SINKS, Floor::WINDOW));
        let sinks = self.sinks.unwrap_or(otherwise.sinks);
        let window = self.window.unwrap_or(otherwise.window);
        let floor = Floor {
            whole_windows: self.windows.whole_windows || otherwise.whole_windows,
            ..Floor::of(sinks, window)
        };
        floor.check()?;
        if let Some(tokens) = self.tokens {
            check_length(&floor, tokens, "the prompt of --tokens")?;
        }
        Ok(floor)
    }

    /// Reads the profile, or the model's header.
    pub fn read(&self, quiet: bool) -> anyhow::Result<Reference> {
        let floor = self.floor(None)?;
        let (geometry, profile, longest) = match (&self.profile, &self.model) {
            (Some(folder), _) => {
                let profile = Profile::load(folder).context("reading the profile")?;
                let longest = longest_prompt(&profile)?;
                let geometry = Geometry::of(&profile.meta);
                (geometry, Some((folder.clone(), profile)), Some(longest))
            }
            (None, Some(model)) => {
                anyhow::ensure!(
                    self.tokens.is_some(),
                    "--model needs --tokens: without a profile no prompt length is known"
                );
                (load::geometry(model, &self.terms, quiet)?, None, None)
            }
            (None, None) => anyhow::bail!(
                "--profile is needed: make one with `kvprof profile`, or name the --model alone"
            ),
        };
        let tokens = self.tokens.or(longest).unwrap_or(0);
        check_length(&floor, tokens, "the longest prompt of the profile")?;
        Ok(Reference {
            geometry,
            profile,
            tokens,
            floor,
        })
    }
}

/// A prompt of sinks and window alone leaves nothing to choose.
fn check_length(floor: &Floor, tokens: usize, whose: &str) -> anyhow::Result<()> {
    let reserved = floor.sinks.saturating_add(floor.window);
    anyhow::ensure!(
        reserved < tokens,
        "sinks {} + window {} are {reserved} tokens, but {whose} has {tokens}: lower --sinks or \
         --window, or raise --tokens",
        floor.sinks,
        floor.window
    );
    Ok(())
}

impl Reference {
    /// What is needed of the profile, where there is one.
    pub fn measures(&self, needs: &Needs) -> anyhow::Result<Option<Measures>> {
        let profile = self.profile.as_ref();
        let measures = profile.map(|(_, profile)| Measures::of_profile(profile, needs));
        Ok(measures.transpose()?)
    }

    /// KV heads that take part in a budget, and the tokens that they can hold together.
    pub fn parts(&self) -> (usize, usize) {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        let room = self.geometry.room(self.floor.whole_windows, self.tokens);
        room.of_parts(layers, kv_heads)
    }

    /// Bytes of the full cache as `profile` and `generate` prefill it, in float32; of a layer with a window those that it
    /// sees.
    pub fn full_bytes(&self) -> usize {
        let spans = (0..self.geometry.layers).map(|l| self.geometry.span(l, self.tokens));
        let tokens = spans.sum::<usize>() * self.geometry.kv_heads;
        Representation::FLOAT32.bytes(tokens, self.geometry.head_dim)
    }

    /// A request for a budget of this model, without measurements.
    pub fn request(&self, budget: Budget) -> Request<'static> {
        Request::of_model(self.geometry.clone(), budget, self.floor, self.tokens)
    }

    /// Where plans of this model come from; `command` repeats the run.
    pub fn provenance(&self, command: String) -> anyhow::Result<Provenance> {
        let folder: Option<&Path> = self.profile.as_ref().map(|(folder, _)| folder.as_path());
        Ok(Provenance {
            kvprof: env!("CARGO_PKG_VERSION").to_owned(),
            command,
            source: folder.map(|f| f.to_string_lossy().into_owned()),
            source_sha256: folder.map(profile_digest).transpose()?,
            certificate: None,
        })
    }
}
