//! One prefill of a prompt, observed for several methods at once.

use std::borrow::Cow;
use std::time::Instant;

use candle_core::Tensor;

use super::asked::{Asked, token_scorer};
use super::definition::{Allocation, Cut, Method, Ranking};
use super::live_cache::LiveCache;
use super::replay;
use super::residency::{FirstCache, PromptQueries, RecentQueries};
use crate::budget::{
    CacheBudget, Floor, Geometry, Measures, Room, TokenBudgets, TokenScores, are_alike, fit_bytes,
};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::attention::{AttentionProbe, Tee};
use crate::model::cache::{KvCache, Representations};
use crate::model::decoder::{Decoder, PREFILL_RUN};
use crate::profile::{MeasureOptions, Profiler};
use crate::select::{
    ContinuationProbe, Imports, LayerScores, Scorer, ScoringProbe, Slots, kept_slots,
    place_of_scores, select_layers,
};

/// A prefilled prompt: full cache, logits of its last token, scores of every token.
pub struct Prefilled {
    /// The full cache.
    pub cache: KvCache,
    /// Float32 logits of the last token, `(vocab)`.
    pub logits: Tensor,
    /// `[scorer][layer]`, on the model's device.
    pub scores: Vec<Vec<LayerScores>>,
    /// Seconds of the prefill, probes included.
    pub seconds: f64,
}

/// Prefills a prompt, scoring its tokens, while `probe` watches the same attention.
///
/// `scorers` come with the window of their selection; `room` is for tokens to come.
/// Errors: those of [`Decoder::prefill`] and of the scorers.
pub fn prefill(
    decoder: &Decoder,
    ids: &[u32],
    room: usize,
    scorers: Vec<(&dyn Scorer, usize)>,
    probe: &mut dyn AttentionProbe,
) -> Result<Prefilled> {
    let start = Instant::now();
    let mut cache = decoder.new_cache(ids.len() + room)?;
    let mut scoring = ScoringProbe::new(scorers);
    let logits = decoder.prefill(ids, &mut cache, PREFILL_RUN, &mut Tee(probe, &mut scoring))?;
    Ok(Prefilled {
        cache,
        logits,
        scores: scoring.finish(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// A prefilled prompt with everything that methods need of it.
pub struct Observed<'a> {
    /// The full cache.
    pub cache: KvCache,
    /// Float32 logits of the last token, `(vocab)`.
    pub logits: Tensor,
    /// Seconds of the one prefill, probes included.
    pub seconds: f64,
    asked: Vec<Asked<'a>>,
    measures: Measures,
    /// The prompt's last queries, as many as some residency looks back from, `[layer]`.
    last_queries: Vec<RecentQueries>,
    floor: Floor,
    tokens: usize,
}

/// Prefills a prompt once for all `methods`; `room` is for tokens to come.
///
/// What is scored, and what is measured, is the union of what the methods say that they need.
/// Errors: those of [`prefill`].
pub fn observe<'a>(
    model: &Model,
    ids: &[u32],
    room: usize,
    methods: &'a [Method],
    floor: Floor,
) -> Result<Observed<'a>> {
    let decoder = &model.decoder;
    for method in methods {
        method.check_device(decoder.device(), decoder.precision())?;
    }
    let mut asked = Asked::by(methods);
    let during_prefill = |a: &Asked<'_>| a.is_of_prefill(floor.window);
    let scorers = asked.iter().filter(|a| during_prefill(a));
    let scorers = scorers.map(|a| (a.scorer, floor.window)).collect();
    let options = MeasureOptions {
        window: Some(floor.window.max(1)),
        needs: Some(methods.iter().map(Method::own_needs).collect()),
        ..MeasureOptions::default()
    };
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    let looked_back = methods.iter().map(|m| m.residency.looks_back(&floor));
    let mut queries = PromptQueries::up_to(looked_back.max().unwrap_or(0));
    let mut probe = Tee(&mut profiler, &mut queries);
    let mut prefilled = prefill(decoder, ids, room, scorers, &mut probe)?;
    let layers = profiler.finish();
    let measures = Measures::of_prompt(Geometry::of_model(model), ids.len(), &layers, &options);
    let scored = asked.iter_mut().filter(|a| during_prefill(a));
    for (asked, scores) in scored.zip(prefilled.scores) {
        asked.scores = scores;
    }
    let config = decoder.config();
    let (layers, kv_heads) = (config.num_hidden_layers(), config.num_key_value_heads);
    let place = place_of_scores(decoder.device());
    for asked in &mut asked {
        if let Some(files) = asked.scorer.imported() {
            asked.scores = files.scores(ids, &place, layers, kv_heads)?;
        }
    }
    let mut read_again = false;
    for asked in &mut asked {
        if let Some(needs) = asked.scorer.needs(floor.window).replay {
            let cache = &mut prefilled.cache;
            let again = replay::read_again(model, ids, cache, asked, needs, floor.window);
            if let Err(problem) = again {
                // Other scorers have what they need.
                asked.problem = Some(problem.to_string());
                cache.rewind(ids.len())?;
            }
            read_again = true;
        }
    }
    if read_again {
        prefilled.cache.compact(room)?;
    }
    Ok(Observed {
        cache: prefilled.cache,
        logits: prefilled.logits,
        seconds: prefilled.seconds,
        asked,
        measures,
        last_queries: queries.layers,
        floor,
        tokens: ids.len(),
    })
}

impl Observed<'_> {
    /// T of what was prefilled.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Seconds of the passes that a method's scorer reads the prompt again in; the prefill is not among them.
    pub fn replay_seconds(&self, method: &Method) -> f64 {
        let ranking = method.cut.as_ref().map(|cut| &cut.ranking);
        let own = ranking.map(|ranking| Asked::of(&ranking.name, &*ranking.scorer));
        let known = own.and_then(|own| self.asked.iter().find(|known| known.scores_like(&own)));
        known.map_or(0.0, |known| known.seconds)
    }

    /// The model that was measured.
    pub fn geometry(&self) -> &Geometry {
        self.measures.geometry()
    }

    /// Whether a scorer looks at what the full cache says next, for which see [`Observed::look_ahead`].
    pub fn looks_ahead(&self) -> bool {
        self.asked.iter().any(|a| a.looks_ahead(self.floor.window))
    }

    /// Scores anew, by what `ids` look at while the full cache is fed them: every scorer that looks from a window takes
    /// their last rows for it. The full cache is rewound.
    ///
    /// Scorers that look from nowhere keep what they said of the prefill, and so do measures that a profile could hold.
    /// Errors: those of the decoder and of the scorers; [`Error::Unsupported`] anywhere but on the CPU; [`Error::Invalid`]
    /// for a full cache that cannot be rewound, and for no ids.
    pub fn look_from(
        &mut self,
        decoder: &Decoder,
        full: &mut LiveCache,
        ids: &[u32],
    ) -> Result<()> {
        if !decoder.device().is_cpu() {
            return Err(Error::Unsupported {
                what: "looking at a prompt from behind it on",
                found: format!("{:?}", decoder.device().location()),
                supported: "--device cpu, or --observe-from context".into(),
            });
        }
        let window = self.floor.window;
        let looks = |asked: &&mut Asked<'_>| asked.scorer.needs(window).looks_from_window();
        let mut asked: Vec<&mut Asked<'_>> = self.asked.iter_mut().filter(looks).collect();
        if asked.is_empty() {
            return Ok(());
        }
        if ids.is_empty() {
            let bound = "a question behind the context is needed: take --observe-from context";
            return Err(Error::invalid("tokens to look from", 0, bound));
        }
        if !full.can_rewind() {
            let held_as = full.cache().representations();
            let bound = "what is looked from is taken back, for which a full cache must rewind: --cache-dtype q8_0, bf16 or f32";
            return Err(Error::invalid("type of the cache", held_as, bound));
        }
        let start = full.cache().next_position();
        let scorers = asked.iter().map(|a| (a.scorer, window)).collect();
        let mut probe = ScoringProbe::behind(self.tokens, scorers);
        full.feed_watched(decoder, ids, &mut probe)?;
        full.rewind(start)?;
        full.count_anew();
        for (asked, scores) in asked.iter_mut().zip(probe.finish()) {
            asked.scores = scores;
        }
        Ok(())
    }

    /// Scores by what the full cache's continuation attends to.
    ///
    /// Errors: the scorers'.
    pub fn look_ahead(&mut self, continuation: &ContinuationProbe) -> Result<()> {
        let window = self.floor.window;
        for asked in self.asked.iter_mut().filter(|a| a.looks_ahead(window)) {
            asked.scores = continuation.score(asked.scorer, window)?;
        }
        Ok(())
    }

    /// Allocates: tokens of every KV head.
    ///
    /// A budget in bytes gives as many tokens as fit in what the method holds them in.
    /// Shapes: `[layer][kv_head]`. Errors: as [`super::Allocation::budgets`]; [`Error::Invalid`] for bytes that hold not
    /// even what every KV head keeps.
    pub fn allocate(
        &self,
        method: &Method,
        cut: &Cut,
        budget: Option<CacheBudget>,
    ) -> Result<TokenBudgets> {
        let measures = self.measures_for(method, cut)?;
        let allocated =
            |budget| (cut.allocation).budgets(&measures, budget, self.floor, self.tokens);
        let limit = budget.and_then(|budget| budget.bytes(self.cache.bytes()));
        match (limit, &cut.allocation) {
            (Some(limit), Allocation::Rule(_)) => {
                let geometry = self.measures.geometry();
                let own = method.held_as();
                let held_as = own.unwrap_or_else(|| self.cache.representations());
                let bytes = |budgets: &TokenBudgets| held_as.bytes(budgets, geometry.head_dim);
                let room = Room::of(geometry, self.floor.whole_windows, self.tokens);
                let parts = room.of_parts(geometry.layers, geometry.kv_heads);
                fit_bytes(
                    parts,
                    held_as.coded_together(),
                    limit,
                    &|budgets| are_alike(budgets),
                    &|budget| allocated(Some(budget)),
                    &bytes,
                )
            }
            _ => allocated(budget.and_then(CacheBudget::tokens)),
        }
    }

    /// What was measured, with the method's own scores where its allocation reads them.
    fn measures_for(&self, method: &Method, cut: &Cut) -> Result<Cow<'_, Measures>> {
        let needs = method.own_needs();
        let of_tokens = |name: &str, scorer: &dyn Scorer| {
            let scores = self.scores(name, scorer)?.iter();
            let rows = scores.map(LayerScores::to_rows).collect::<Result<_>>()?;
            TokenScores::new(rows, self.cache.firsts_in_sight())
        };
        let mut measures = Cow::Borrowed(&self.measures);
        if needs.scores {
            let scores = of_tokens(&cut.ranking.name, &*cut.ranking.scorer)?;
            measures = Cow::Owned(measures.into_owned().with_scores(scores));
        }
        for measure in needs.token_measures {
            let tokens = of_tokens(measure.name(), token_scorer(measure))?;
            measures = Cow::Owned(measures.into_owned().with_token_measure(measure, tokens));
        }
        Ok(measures)
    }

    /// Selects: the slots that every KV head keeps under its budget.
    ///
    /// Shapes: `[layer][kv_head][slot]`, ascending. Errors: as [`select_layers`]; [`Error::Invalid`] for a scorer that did
    /// not score this prompt.
    pub fn select(&self, ranking: &Ranking, budgets: &TokenBudgets) -> Result<Vec<Slots>> {
        let scores = self.scores(&ranking.name, &*ranking.scorer)?;
        let Floor { sinks, window, .. } = self.floor;
        let firsts = self.cache.firsts_in_sight();
        select_layers(scores, &firsts, budgets, sinks, window, ranking.split)
    }

    /// Allocates and selects: what a method keeps of the prompt under a budget.
    ///
    /// Shapes: `[layer][kv_head][slot]`, ascending; every slot in sight without a cut. Errors: as [`Observed::allocate`] and
    /// [`Observed::select`].
    pub fn kept(&self, method: &Method, budget: Option<CacheBudget>) -> Result<Vec<Slots>> {
        let Some(cut) = &method.cut else {
            return Ok(self.cache.slots_in_sight());
        };
        let ranking = &cut.ranking;
        let files = ranking.scorer.imported();
        if files.is_some_and(|files| files.imports() == Imports::Kept) {
            let firsts = self.cache.firsts_in_sight();
            return kept_slots(self.scores(&ranking.name, &*ranking.scorer)?, &firsts);
        }
        self.select(ranking, &self.allocate(method, cut, budget)?)
    }

    /// Cuts: a cache of the kept slots alone that lives by the method's residency; the full cache stays whole.
    ///
    /// `budget` is the one that the slots were kept under, which a residency may spend too; `room` is for tokens to come.
    /// Errors: those of the cut and of the residency.
    pub fn cut(
        &self,
        method: &Method,
        kept: &[Slots],
        budget: Option<CacheBudget>,
        room: usize,
    ) -> Result<LiveCache> {
        let first = self.first_cache(method, kept, budget)?;
        let cache = match method.residency.levels(&first)? {
            Some(cut) => self.cache.cut_levels(&cut.kept, cut.held_as)?,
            None => self.cache.cut_as(kept, room, &self.held_as(method))?,
        };
        LiveCache::new(cache, method.residency.start(&first)?)
    }

    /// Cuts in place: the rest of the full cache is freed, layer by layer. What keeps all of it stays where it lies,
    /// unless a window has passed some of it.
    ///
    /// Errors: as [`Observed::cut`].
    pub fn into_cut(
        mut self,
        method: &Method,
        kept: &[Slots],
        budget: Option<CacheBudget>,
        room: usize,
    ) -> Result<LiveCache> {
        let first = self.first_cache(method, kept, budget)?;
        let held_as = self.held_as(method);
        let mut cache = std::mem::take(&mut self.cache);
        if let Some(cut) = method.residency.levels(&first)? {
            cache.retain_levels(&cut.kept, cut.held_as)?;
        } else if method.cut.is_some()
            || held_as != cache.representations()
            || (cache.hides() && cache.holds_tokens_alone())
        {
            cache.retain_as(kept, room, &held_as)?;
        }
        LiveCache::new(cache, method.residency.start(&first)?)
    }

    /// In which elements a method holds what it keeps.
    fn held_as(&self, method: &Method) -> Representations {
        let own = method.cut_held_as();
        own.unwrap_or_else(|| self.cache.representations())
    }

    /// What a method's residency is told of the cache that it takes over.
    fn first_cache<'k>(
        &self,
        method: &Method,
        kept: &'k [Slots],
        budget: Option<CacheBudget>,
    ) -> Result<FirstCache<'k>> {
        let prompt_scores = match method.residency.prompt_scorer() {
            None => Vec::new(),
            Some((name, scorer)) => {
                let layers = self.scores(name, scorer)?.iter();
                layers.map(LayerScores::to_rows).collect::<Result<_>>()?
            }
        };
        let looked_back = method.residency.looks_back(&self.floor);
        let last_queries = if looked_back > 0 {
            let layers = self.last_queries.iter();
            layers.map(|held| held.newest(looked_back)).collect()
        } else {
            Vec::new()
        };
        Ok(FirstCache {
            kept,
            prompt_tokens: self.tokens,
            floor: self.floor,
            budget,
            full_bytes: self.cache.bytes(),
            head_dim: self.measures.geometry().head_dim,
            prompt_scores,
            last_queries,
        })
    }

    /// How much every token matters by a method's scorer.
    ///
    /// Shapes: `[layer][kv_head][token]`. Errors: [`Error::Invalid`] for a method that does not cut, or whose scorer did not
    /// score this prompt.
    pub fn token_scores(&self, method: &Method) -> Result<Vec<Vec<Vec<f64>>>> {
        let cut = method.cut.as_ref().ok_or_else(|| {
            let bound = "one that cuts is needed";
            Error::invalid("method whose scores are asked for", &method.name, bound)
        })?;
        let scores = self.scores(&cut.ranking.name, &*cut.ranking.scorer)?;
        scores.iter().map(LayerScores::to_rows).collect()
    }

    fn scores(&self, name: &str, scorer: &dyn Scorer) -> Result<&[LayerScores]> {
        let one = Asked::of(name, scorer);
        let found = self.asked.iter().find(|known| known.scores_like(&one));
        let found =
            found.ok_or_else(|| Error::invalid("scorer", name, "it did not score this prompt"))?;
        if let Some(problem) = &found.problem {
            let bound = format!("it could not read the prompt again: {problem}");
            return Err(Error::invalid("scorer", name, bound));
        }
        if found.scores.is_empty() {
            let bound = "the full cache said nothing that could be looked at";
            return Err(Error::invalid("scorer", name, bound));
        }
        Ok(&found.scores)
    }
}
