//! Bytes that are spent on bits and on tokens together.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::amount::Budget;
use super::curve::Curve;
use super::floor::Floor;
use super::geometry::Geometry;
use super::measures::Measures;
use super::optimum::measured_to_the_end;
use super::plan::{BudgetPlan, Provenance};
use super::profile_curves::loss_curves;
use super::request::{Request, Targets};
use super::room::Room;
use super::spend_bytes::{Choice, best_choices};
use super::type_errors::type_errors;
use crate::error::{Error, Result};
use crate::model::cache::Representation;
use crate::profile::{CurveMeasure, OutputMeasure, Profile, Vector};
use crate::registry::{Entry, described, parse};

/// Chooses for every layer how many tokens it keeps and in what type, so that the outputs' errors are the least that a
/// number of bytes can have.
///
/// A layer keeps as many tokens as some budget of the profile's curves, and holds them in one of the types that the profile
/// has measured. Its squared error is e² = l2_tokens² + l2_bits²: the relative L2 errors of the pooled output with so many
/// of the best keys, and with all keys in that type. What eviction and what rounding do are taken for independent, whose
/// squares add. Bytes are spent along the lower convex hulls of (bytes, e²), which docs/budgets.md describes.
///
/// Paper: none: house definition. Differs: it answers tokens and types, where an [`super::Allocator`] answers tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BitsAndTokens {
    /// The types that a layer may be held in; none stands for all that the profile has measured.
    #[serde(deserialize_with = "types")]
    pub types: Vec<Representation>,
}

/// The strategy as lists name it; it stands beside [`super::ALLOCATORS`].
pub const BITS_AND_TOKENS: Entry<BitsAndTokens> = Entry {
    name: "bits-and-tokens",
    paper: "house definition",
    about: "spends bytes on tokens and on bits of every layer, by the measured curves and errors of types",
    differs: "nothing was published to differ from",
    build: |p| Ok(Box::new(parse::<BitsAndTokens>(p)?)),
};

/// Types as a list, or in one text with `;` between them.
fn types<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<Representation>, D::Error> {
    let custom = serde::de::Error::custom;
    match Value::deserialize(deserializer)? {
        Value::String(text) => {
            let types = text.split(';').map(|one| one.parse().map_err(custom));
            types.collect()
        }
        list => Vec::deserialize(list).map_err(serde::de::Error::custom),
    }
}

/// A way to hold a layer.
#[derive(Clone, Copy)]
struct Held {
    tokens: usize,
    held_as: Representation,
    choice: Choice,
}

impl BitsAndTokens {
    /// Spends at most `bytes` on a prompt of `tokens`, and never less than the floor on any KV head.
    ///
    /// Layers that are kept whole keep all tokens, in a type of their own; their bytes are among those that are spent.
    /// Errors: [`Error::Invalid`] for a profile without errors of types or with shorter prompts, and for bytes that hold not
    /// even the floor in the smallest type; [`Error::UnknownName`] for a type that was not measured; those of
    /// [`Request::check`].
    pub fn plan(
        &self,
        profile: &Profile,
        floor: Floor,
        tokens: usize,
        bytes: usize,
        provenance: Provenance,
    ) -> Result<BudgetPlan> {
        let geometry = Geometry::of(&profile.meta);
        let everything = Budget::RetainedFraction(1.0);
        let request = Request::of_model(geometry.clone(), everything, floor, tokens);
        request.check()?;
        let room = request.room();
        let layers = self.choices(profile, &request, &room)?;
        let costs = layers
            .iter()
            .map(|held| held.iter().map(|h| h.choice).collect());
        let costs: Vec<Vec<Choice>> = costs.collect();
        let chosen = best_choices(&costs, bytes).ok_or_else(|| too_few(&costs, bytes))?;
        let chosen = layers.iter().zip(chosen).map(|(held, place)| held[place]);
        let chosen: Vec<Held> = chosen.collect();
        let own = |(l, held): (usize, &Held)| {
            // What is kept whole has no share in the budget.
            let tokens = if room.takes_part(l) {
                held.tokens
            } else {
                floor.tokens
            };
            vec![tokens as f64; geometry.kv_heads]
        };
        let targets = Targets {
            floor: floor.tokens,
            tokens: chosen.iter().enumerate().flat_map(own).collect(),
        };
        let parts = chosen
            .iter()
            .enumerate()
            .filter(|(l, _)| room.takes_part(*l));
        let total = parts.map(|(_, held)| held.tokens).sum::<usize>() * geometry.kv_heads;
        let (heads, _) = room.of_parts(geometry.layers, geometry.kv_heads);
        let spent = Request {
            budget: Budget::of_total(total, heads),
            ..request
        };
        let name = BITS_AND_TOKENS.name;
        let parameters = described(&Self {
            types: self.known_types(profile).to_vec(),
        });
        let plan = BudgetPlan::of_targets(name, parameters, &spent, &targets, provenance)?;
        let types = chosen
            .iter()
            .map(|held| vec![held.held_as; geometry.kv_heads]);
        Ok(BudgetPlan {
            held_as: types.collect(),
            ..plan
        })
    }

    fn known_types<'a>(&'a self, profile: &'a Profile) -> &'a [Representation] {
        if self.types.is_empty() {
            return &profile.meta.settings.measures.quantise;
        }
        &self.types
    }

    /// Every way to hold every layer.
    fn choices(
        &self,
        profile: &Profile,
        request: &Request<'_>,
        room: &Room,
    ) -> Result<Vec<Vec<Held>>> {
        let types = self.known_types(profile);
        let errors = type_errors(profile, types)?;
        let (vector, measure) = (Vector::Pooled, OutputMeasure::RelativeL2);
        let output = CurveMeasure::Output {
            vector,
            measure,
            raw: false,
        };
        let measures = Measures::of_profile(profile, &output.into())?;
        let measured = Request {
            measures: Some(&measures),
            ..request.clone()
        };
        let measures = measured_to_the_end(&measured)?;
        let losses = loss_curves(measures, vector, measure, false, request.tokens)?;
        let geometry = &request.geometry;
        let of_layer = |(l, (loss, errors)): (usize, (&Curve, &Vec<f64>))| {
            let most = room.most(l);
            let least = if room.takes_part(l) {
                request.lowest().min(most)
            } else {
                most
            };
            let points = loss.points(least, most, 1).into_iter();
            let ways = points.flat_map(|(tokens, lost)| {
                types
                    .iter()
                    .zip(errors)
                    .map(move |(&held_as, rounded)| Held {
                        tokens,
                        held_as,
                        choice: Choice {
                            bytes: geometry.kv_heads * held_as.bytes(tokens, geometry.head_dim),
                            error: lost * lost + rounded * rounded,
                        },
                    })
            });
            ways.collect()
        };
        Ok(losses
            .iter()
            .zip(&errors)
            .enumerate()
            .map(of_layer)
            .collect())
    }
}

fn too_few(layers: &[Vec<Choice>], bytes: usize) -> Error {
    let least = layers
        .iter()
        .filter_map(|held| held.iter().map(|c| c.bytes).min());
    let bound = format!(
        "the floor in the smallest of the types takes {}: allow more, lower --floor, --sinks or --window, leave --whole-windows out \
         where it is given, or name types of fewer bits",
        least.sum::<usize>()
    );
    Error::invalid("budget in bytes", bytes, bound)
}

#[cfg(test)]
#[path = "tests/bits_and_tokens.rs"]
mod tests;
