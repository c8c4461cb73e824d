//! What allocators read: the measures of a profile's prompts, or of one prompt in its own prefill.

use super::geometry::Geometry;
use super::longest::longest;
use super::token_scores::TokenScores;
use crate::error::{Error, Result};
use crate::profile::{
    BudgetMeasure, CurveMeasure, LayerMeasures, LayerNumber, MeasureOptions, Needs, Points,
    Profile, TokenMeasure, budget_grid,
};
use crate::table::Table;

/// Some measures of the same prompts on one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    geometry: Geometry,
    /// What could have been asked for.
    options: MeasureOptions,
    /// T of every prompt.
    tokens: Vec<usize>,
    /// Minimum budgets, `[prompt]` of one per layer or one per KV head in layer order.
    budgets: Vec<(BudgetMeasure, Vec<Vec<f64>>)>,
    /// Curves, `[prompt]` of one per layer or one per query head in layer order.
    curves: Vec<(CurveMeasure, Vec<Vec<Points>>)>,
    /// Numbers of layers, `[prompt][layer]`.
    numbers: Vec<(LayerNumber, Vec<Vec<f64>>)>,
    /// What rows of the one prompt say of its tokens.
    token_measures: Vec<(TokenMeasure, TokenScores)>,
    /// By which a method ranks the tokens of the one prompt.
    scores: Option<TokenScores>,
}

impl Measures {
    /// Takes what is needed from the tables of a profile.
    ///
    /// Errors: [`Error::UnknownName`] for a threshold or column that the profile does not have; [`Error::Invalid`] for
    /// tables without rows, or of another shape than the model's.
    pub fn of_profile(profile: &Profile, needs: &Needs) -> Result<Self> {
        let options = profile.meta.settings.measures.clone();
        needs.check(&options)?;
        if !needs.is_in_profiles() {
            return Err(no_scores());
        }
        let lengths = profile.layers.counts("tokens")?.iter();
        let lengths = lengths.step_by(profile.meta.model.num_layers.max(1));
        let mut measures = Self {
            geometry: Geometry::of(&profile.meta),
            options,
            tokens: lengths.map(|&t| t as usize).collect(),
            budgets: Vec::new(),
            curves: Vec::new(),
            numbers: Vec::new(),
            token_measures: Vec::new(),
            scores: None,
        };
        for measure in &needs.budgets {
            let budgets = measures.read_budgets(profile, measure)?;
            measures.budgets.push((*measure, budgets));
        }
        for measure in &needs.curves {
            let curves = measures.read_curves(&profile.curves, measure)?;
            measures.curves.push((*measure, curves));
        }
        for number in &needs.numbers {
            let numbers = measures.read_numbers(profile, *number)?;
            measures.numbers.push((*number, numbers));
        }
        Ok(measures)
    }

    /// Takes the measures of one prompt of `tokens`, as its own prefill left them.
    ///
    /// What `options` did not ask for is absent.
    pub fn of_prompt(
        geometry: Geometry,
        tokens: usize,
        layers: &[LayerMeasures],
        options: &MeasureOptions,
    ) -> Self {
        let needs = options.asked();
        let grid = budget_grid(tokens);
        let budgets = needs.budgets.into_iter().filter_map(|measure| {
            let of_layers = layers.iter().map(|l| measure.of_layer(l, options));
            let of_layers: Vec<Vec<f64>> = of_layers.collect::<Option<_>>()?;
            Some((measure, vec![of_layers.concat()]))
        });
        let curves = needs.curves.into_iter().filter_map(|measure| {
            let of_layers = layers.iter().map(|l| measure.of_layer(l, &grid));
            let of_layers: Vec<Vec<Points>> = of_layers.collect::<Option<_>>()?;
            Some((measure, vec![of_layers.concat()]))
        });
        let numbers = needs.numbers.into_iter().filter_map(|number| {
            let of_layers = layers.iter().map(|l| number.of_layer(l));
            Some((number, vec![of_layers.collect::<Option<_>>()?]))
        });
        Self {
            geometry,
            options: options.clone(),
            tokens: vec![tokens],
            budgets: budgets.collect(),
            curves: curves.collect(),
            numbers: numbers.collect(),
            token_measures: Vec::new(),
            scores: None,
        }
    }

    /// The same with what rows of the prompt say of its tokens.
    #[must_use]
    pub fn with_token_measure(mut self, measure: TokenMeasure, tokens: TokenScores) -> Self {
        self.token_measures.push((measure, tokens));
        self
    }

    /// The same with a number of every layer, `[prompt][layer]`.
    #[cfg(test)]
    pub(super) fn with_numbers(mut self, number: LayerNumber, layers: Vec<Vec<f64>>) -> Self {
        self.numbers.push((number, layers));
        self
    }

    /// The same with the scores by which a method ranks the prompt's tokens.
    #[must_use]
    pub fn with_scores(mut self, scores: TokenScores) -> Self {
        self.scores = Some(scores);
        self
    }

    /// The scores by which a method ranks the prompt's tokens.
    ///
    /// Errors: [`Error::Unsupported`] where there are none, as in a profile.
    pub fn scores(&self) -> Result<&TokenScores> {
        self.scores.as_ref().ok_or_else(no_scores)
    }

    /// The measures of some layers, as if the model had no others.
    pub(super) fn of_layers(&self, layers: &[usize]) -> Self {
        fn picked<T: Clone>(all: &[Vec<T>], layers: &[usize], of: usize) -> Vec<Vec<T>> {
            let prompt = |values: &Vec<T>| {
                let width = (values.len() / of.max(1)).max(1);
                let layer = |l: &usize| values.chunks(width).nth(*l).unwrap_or_default().to_vec();
                layers.iter().flat_map(layer).collect()
            };
            all.iter().map(prompt).collect()
        }
        let of = self.geometry.layers;
        let budgets = self.budgets.iter();
        let curves = self.curves.iter();
        Self {
            geometry: self.geometry.of_layers(layers),
            options: self.options.clone(),
            tokens: self.tokens.clone(),
            budgets: budgets
                .map(|(m, all)| (*m, picked(all, layers, of)))
                .collect(),
            curves: curves
                .map(|(m, all)| (*m, picked(all, layers, of)))
                .collect(),
            numbers: (self.numbers.iter())
                .map(|(n, all)| (*n, picked(all, layers, of)))
                .collect(),
            token_measures: (self.token_measures.iter())
                .map(|(m, tokens)| (*m, tokens.of_layers(layers)))
                .collect(),
            scores: self.scores.as_ref().map(|scores| scores.of_layers(layers)),
        }
    }

    /// The model that was measured.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The longest prompt: the reference length at which nothing measured is cut off.
    ///
    /// Errors: [`Error::Invalid`] where there is no prompt.
    pub fn longest_prompt(&self) -> Result<usize> {
        longest(self.tokens.iter().copied())
    }

    /// T of every prompt.
    pub fn prompt_lengths(&self) -> &[usize] {
        &self.tokens
    }

    /// Minimum budgets, `[prompt]` of one per layer or one per KV head in layer order.
    ///
    /// Errors: [`Error::UnknownName`] for a threshold that is not measured, and for a measure that was not asked for.
    pub fn budgets(&self, measure: &BudgetMeasure) -> Result<&[Vec<f64>]> {
        measure.check(&self.options)?;
        measured(&self.budgets, measure, BudgetMeasure::column)
    }

    /// Curves, `[prompt]` of one per layer or one per query head in layer order.
    ///
    /// Errors: [`Error::UnknownName`] for a measure that was not asked for.
    pub fn curves(&self, measure: &CurveMeasure) -> Result<&[Vec<Points>]> {
        measured(&self.curves, measure, CurveMeasure::column)
    }

    /// A number of every layer, `[prompt][layer]`.
    ///
    /// Errors: [`Error::UnknownName`] for a number that was not asked for.
    pub fn numbers(&self, number: LayerNumber) -> Result<&[Vec<f64>]> {
        measured(&self.numbers, &number, |number| number.name().to_owned())
    }

    /// What rows of the prompt say of its tokens.
    ///
    /// Errors: [`Error::Unsupported`] where it is not known, as in a profile.
    pub fn token_measure(&self, measure: TokenMeasure) -> Result<&TokenScores> {
        let found = self.token_measures.iter().find(|(m, _)| *m == measure);
        found.map(|(_, tokens)| tokens).ok_or_else(no_scores)
    }

    fn read_numbers(&self, profile: &Profile, number: LayerNumber) -> Result<Vec<Vec<f64>>> {
        let values = match number {
            LayerNumber::PooledEntropy => profile.heads.numbers("entropy")?,
            LayerNumber::ResidualCosine => return Err(no_scores()),
        };
        let (heads, layers) = (self.geometry.heads, self.geometry.layers);
        if values.len() != self.tokens.len() * layers * heads {
            let bound = format!(
                "{heads} rows for each of {layers} layers and every prompt are expected: profile again"
            );
            return Err(Error::invalid(
                "rows of the profile's heads",
                values.len(),
                bound,
            ));
        }
        let means: Vec<f64> = (values.chunks(heads.max(1)))
            .map(|heads| heads.iter().sum::<f64>() / heads.len() as f64)
            .collect();
        Ok(means.chunks(layers.max(1)).map(<[f64]>::to_vec).collect())
    }

    fn read_budgets(&self, profile: &Profile, measure: &BudgetMeasure) -> Result<Vec<Vec<f64>>> {
        let (table, rows) = match measure {
            BudgetMeasure::KvHeads { .. } => (&profile.kv_heads, self.geometry.cells()),
            _ => (&profile.layers, self.geometry.layers),
        };
        let column = measure.column();
        let values = table.numbers(&column)?;
        let prompts = self.tokens.len();
        if prompts == 0 || values.len() != prompts.saturating_mul(rows) {
            let bound =
                format!("a multiple of {rows} is expected, {rows} for every prompt: profile again");
            let what = format!("rows of column {column}");
            return Err(Error::invalid(what, values.len(), bound));
        }
        Ok(values.chunks(rows.max(1)).map(<[f64]>::to_vec).collect())
    }

    fn read_curves(&self, table: &Table, measure: &CurveMeasure) -> Result<Vec<Vec<Points>>> {
        if table.rows() == 0 {
            let bound = "this needs the curves: make the profile again with this version of kvprof";
            return Err(Error::invalid("rows of curves.parquet", 0, bound));
        }
        let heads = match measure {
            CurveMeasure::Mass(_) => self.geometry.heads,
            // The table repeats a layer's output for every head of it.
            CurveMeasure::Output { .. } => 1,
        };
        let values = table.numbers(&measure.column())?;
        let count = |name| table.counts(name);
        let (prompt, layer) = (count("prompt")?, count("layer")?);
        let (head, budget) = (count("head")?, count("budget")?);
        let none = vec![Points::new(); self.geometry.layers.saturating_mul(heads)];
        let mut curves = vec![none; self.tokens.len()];
        for (row, value) in values.into_iter().enumerate() {
            let (layer, head) = (layer[row] as usize, head[row] as usize);
            if head >= heads {
                continue;
            }
            let of_prompt = curves.get_mut(prompt[row] as usize);
            let Some(points) = of_prompt.and_then(|all| all.get_mut(layer * heads + head)) else {
                let bound = "its prompt and layer are not those of the profile: profile again";
                return Err(Error::invalid("row of curves.parquet", row, bound));
            };
            points.push((budget[row] as usize, value));
        }
        Ok(curves)
    }
}

fn no_scores() -> Error {
    Error::Unsupported {
        what: "strategy that spends by what only the prompt's own prefill shows, from",
        found: "a profile".into(),
        supported: "the prompt itself: leave @profile out, or use it in eval or generate".into(),
    }
}

/// What was measured of all prompts, of the measure asked for.
fn measured<'m, M: PartialEq, V>(
    all: &'m [(M, Vec<V>)],
    measure: &M,
    name: fn(&M) -> String,
) -> Result<&'m [V]> {
    let found = all.iter().find(|(known, _)| known == measure);
    found.map(|(_, values)| values.as_slice()).ok_or_else(|| {
        let known: Vec<String> = all.iter().map(|(known, _)| name(known)).collect();
        Error::unknown("measure", &name(measure), known.iter().map(String::as_str))
    })
}
