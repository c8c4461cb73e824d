//! One prompt, prefilled once, and the texts that methods write behind it.

use std::cell::OnceCell;
use std::time::Instant;

use super::super::fidelity::most_likely;
use super::settings::TraceSettings;
use crate::budget::{CacheBudget, Floor};
use crate::error::{Error, Result};
use crate::method::{LiveCache, Method, Observed, observe};
use crate::model::Model;
use crate::model::residency::ResidencyBytes;

/// One step of a method: the token that came, and what the cache was while it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Position of the token in the text.
    pub position: usize,
    /// Its id.
    pub token: u32,
    /// What was resident, the token's own keys and values included, before any could leave, and what was kept
    /// elsewhere when the step began.
    pub bytes: ResidencyBytes,
    /// Rows that a KV head saw, the token's own included; mean over layers and KV heads.
    pub mean_rows: f64,
    /// Rows that the KV head saw that saw most.
    pub peak_rows: usize,
}

/// What a method wrote, and how long it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Its steps.
    pub steps: Vec<Step>,
    /// Milliseconds of each, from a token to the choice of the next.
    pub ms: Vec<f64>,
}

/// A prompt that was prefilled and observed for all methods of a trace.
pub struct TracedPrompt<'a> {
    model: &'a Model,
    methods: &'a [Method],
    budget: Option<CacheBudget>,
    new_tokens: usize,
    observed: Observed<'a>,
    /// What each method wrote when it was first asked.
    first: Vec<OnceCell<Vec<Step>>>,
}

impl<'a> TracedPrompt<'a> {
    /// Prefills a prompt once for all `methods`; `budget` is for those that spend one.
    ///
    /// Errors: as [`TraceSettings::check_room`]; those of [`observe`], and of every method's cut.
    pub fn prefill(
        model: &'a Model,
        ids: &[u32],
        methods: &'a [Method],
        budget: Option<CacheBudget>,
        floor: Floor,
        new_tokens: usize,
    ) -> Result<Self> {
        let context = model.decoder.config().context_of(ids.len());
        TraceSettings::check_room(ids.len(), new_tokens, context)?;
        let traced = Self {
            model,
            methods,
            budget,
            new_tokens,
            // Every method writes into a copy of its own: the full cache itself needs no room.
            observed: observe(model, ids, 0, methods, floor)?,
            first: methods.iter().map(|_| OnceCell::new()).collect(),
        };
        // What a method cannot keep to is known before others have written for an hour.
        for method in methods.iter().filter(|method| !method.is_reference()) {
            let cut = traced.cut(method, 0);
            cut.map_err(|problem| Error::invalid("method", &method.name, problem.to_string()))?;
        }
        Ok(traced)
    }

    fn cut(&self, method: &Method, room: usize) -> Result<LiveCache> {
        let budget = self.budget_of(method);
        let kept = self.observed.kept(method, budget)?;
        self.observed.cut(method, &kept, budget, room)
    }

    /// The methods.
    pub fn methods(&self) -> &'a [Method] {
        self.methods
    }

    /// What a method spends.
    pub fn budget_of(&self, method: &Method) -> Option<CacheBudget> {
        self.budget.filter(|_| method.spends_budget())
    }

    /// Lets the method at `index` cut a cache of its own and write from it, past every stop id; `on_step` hears of each
    /// step, outside of what is timed.
    ///
    /// The cut cache has room for every token, so that nothing is moved while it is timed.
    /// Errors: those of the cut and of the decoder; [`Error::Invalid`] for a method that wrote or held something else
    /// when it was asked before.
    pub fn write(&self, index: usize, on_step: &mut dyn FnMut()) -> Result<Written> {
        let (method, decoder) = (&self.methods[index], &self.model.decoder);
        let mut live = self.cut(method, self.new_tokens)?;
        let mut token = most_likely(&self.observed.logits.to_vec1::<f32>()?);
        let mut written = Written::default();
        for _ in 0..self.new_tokens {
            let position = live.cache().next_position();
            let offloaded = live.bytes().offloaded;
            live.count_anew();
            let start = Instant::now();
            let logits = live.step(decoder, token)?;
            let next = most_likely(&logits.to_vec1::<f32>()?);
            written.ms.push(start.elapsed().as_secs_f64() * 1e3);
            let held = live.held();
            written.steps.push(Step {
                position,
                token,
                bytes: ResidencyBytes {
                    resident: held.peak_resident,
                    offloaded,
                },
                mean_rows: held.mean(),
                peak_rows: held.peak,
            });
            token = next;
            on_step();
        }
        self.check_again(index, &written.steps)?;
        Ok(written)
    }

    /// A method says and holds the same however often it is asked: only its seconds may differ.
    fn check_again(&self, index: usize, steps: &[Step]) -> Result<()> {
        let first = self.first[index].get_or_init(|| steps.to_vec());
        let differs = first.iter().zip(steps).position(|(a, b)| a != b);
        match differs {
            None => Ok(()),
            Some(step) => Err(Error::invalid(
                format!(
                    "first step at which {} did not repeat itself",
                    self.methods[index].name
                ),
                step,
                "a method writes and holds the same in every repeat: this is a fault of kvprof or of the machine",
            )),
        }
    }
}
