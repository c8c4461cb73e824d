//! What a profile knows of types of the cache: how far they move the layers' outputs.

use super::plan::BudgetPlan;
use crate::error::{Error, Result};
use crate::model::cache::Representation;
use crate::profile::Profile;

/// Mean over prompts of the pooled output's relative L2 error in some of the types that a profile has measured.
///
/// Shapes: `[layer][type]`. Errors: [`Error::Invalid`] for a profile without errors of types, or with damaged ones;
/// [`Error::UnknownName`] for a type that was not measured, listing those that were.
pub fn type_errors(profile: &Profile, types: &[Representation]) -> Result<Vec<Vec<f64>>> {
    let column = "l2_pooled";
    let prompts = profile.type_grid(column)?;
    let measured = &profile.meta.settings.measures.quantise;
    let place = |one: &Representation| {
        let found = measured.iter().position(|known| known == one);
        found.ok_or_else(|| {
            let names: Vec<String> = measured.iter().map(ToString::to_string).collect();
            let names = names.iter().map(String::as_str);
            Error::unknown("type of the cache in the profile", &one.to_string(), names)
        })
    };
    let places: Vec<usize> = types.iter().map(place).collect::<Result<_>>()?;
    let mean = |layer: usize, place: usize| -> Result<f64> {
        let values = prompts
            .iter()
            .filter_map(|layers| layers.get(layer)?.get(place));
        let mean = values.sum::<f64>() / prompts.len().max(1) as f64;
        if mean.is_finite() && mean >= 0.0 {
            return Ok(mean);
        }
        let what = format!("mean of {column} of layer {layer} in quantisation.parquet");
        Err(Error::invalid(
            what,
            mean,
            "errors are 0 or more: profile again",
        ))
    };
    let of_layer = |layer| places.iter().map(|&place| mean(layer, place)).collect();
    (0..profile.meta.model.num_layers).map(of_layer).collect()
}

/// Mean over layers of the relative L2 error of a plan that says what it is held in: that of its tokens, `lost` by layer,
/// and that of its types, whose squares add.
///
/// `None` where the plan says nothing of types, its heads differ within a layer, or a type was not measured.
/// Errors: as [`type_errors`] for damaged ones.
pub fn error_with_types(
    profile: &Profile,
    plan: &BudgetPlan,
    lost: &[Option<f64>],
) -> Result<Option<f64>> {
    let measured = &profile.meta.settings.measures.quantise;
    if plan.held_as.is_empty() || measured.is_empty() {
        return Ok(None);
    }
    let errors = type_errors(profile, measured)?;
    let layers = plan.held_as.iter().zip(lost).zip(&errors);
    let together = layers.map(|((heads, lost), errors)| {
        let (first, lost) = (heads.first()?, (*lost)?);
        let alike = heads.iter().all(|one| one == first);
        let place = measured.iter().position(|one| one == first);
        let rounded = *errors.get(place.filter(|_| alike)?)?;
        Some(lost.hypot(rounded))
    });
    let together: Option<Vec<f64>> = together.collect();
    Ok(together.map(|all| all.iter().sum::<f64>() / all.len().max(1) as f64))
}
