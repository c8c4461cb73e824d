//! Timing some layers of a model on tokens of a prompt, measured as a run would measure them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde::Serialize;

use super::hidden_states::{HiddenStates, RowShape};
use super::layer_growth::LayerGrowth;
use super::options::MeasureOptions;
use super::probe::Profiler;
use super::rows::{LayerSpan, PromptLabel, all_tables};
use crate::compute::memory::bytes_read_from_disk;
use crate::error::Result;
use crate::model::{HiddenRows, LayerStream, StreamedLayer};

/// The shortest part of a prompt that is timed, unless the prompt is shorter: less tells of fixed costs only.
const SHORTEST: usize = 32;
/// Tokens of a pass that only makes sure that a layer's weights are there.
const GLANCE: usize = 8;
/// The longest lengths are fitted, so many of them: the way to them is there to know when to stop.
const FITTED: usize = 4;
/// Times that a length is timed, as long as that takes less than [`QUICK`].
const REPEATS: usize = 3;
/// Of the time, the part that one length may take with its repeats.
const QUICK: f64 = 0.05;
/// Of the time, the part in which lengths are timed; the rest is for other layers.
const LENGTHS: f64 = 0.75;
/// Layers that are timed at one length, at most.
const OTHERS: usize = 8;

/// What a calibration keeps to.
#[derive(Clone, Copy, Debug)]
pub struct CalibrationBound {
    /// Tokens of the prompt, at most.
    pub tokens: usize,
    /// How long it should take; the shortest length is timed whatever it takes.
    pub time: Duration,
}

/// What was timed of a model's layers.
///
/// Paper: none: house definition. Differs: layers are timed with everything that a run measures, on one prompt that has
/// the machine to itself; the first layers of each kind read the prompt's embedding, the following ones what comes before
/// them.
/// Units: seconds, tokens, bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// All of it.
    pub seconds: f64,
    /// The first layer of every kind, at several lengths.
    pub kinds: Vec<KindTimes>,
    /// The layers behind the first, at the longest length of it.
    pub others: Vec<LayerTime>,
    /// What getting a layer's weights takes.
    pub reading: ReadingTimes,
}

/// Several lengths of a prompt in the first layer of a kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindTimes {
    /// Its number, counted from 0.
    pub layer: usize,
    /// The keys that its queries see; `None` is all before them.
    pub window: Option<usize>,
    /// Lengths that were timed, the shortest first.
    pub tokens: Vec<usize>,
    /// What each took.
    pub seconds_of: Vec<f64>,
    /// The fit to the longest of them.
    pub growth: LayerGrowth,
}

/// One length of a prompt in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerTime {
    /// Its number, counted from 0.
    pub layer: usize,
    /// As of the first of its kind.
    pub window: Option<usize>,
    /// Length of the prompt.
    pub tokens: usize,
    /// What it took.
    pub seconds: f64,
}

/// Getting weights of layers into memory, checks included.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReadingTimes {
    /// Numbers of layers that this process had not touched before.
    pub layers: Vec<usize>,
    /// What each of them took, with what its first use took longer than the second.
    pub seconds_of: Vec<f64>,
    /// Their bytes in memory.
    pub bytes: usize,
    /// Bytes that came from a disk meanwhile; the others were in the system's memory. `None` where it does not tell.
    pub from_disk: Option<u64>,
    /// What the first layer took, which had been read just before.
    pub seconds_again: f64,
}

impl KindTimes {
    /// Those lengths that are fitted, with their seconds.
    pub fn fitted(&self) -> Vec<(usize, f64)> {
        let all = self
            .tokens
            .iter()
            .copied()
            .zip(self.seconds_of.iter().copied());
        all.skip(self.tokens.len().saturating_sub(FITTED)).collect()
    }

    /// Seconds that a length should take, from those that were timed.
    fn expects(&self, tokens: usize) -> f64 {
        self.growth.seconds(self.window, tokens)
    }

    /// Adds a length, in its place among the others.
    fn add(&mut self, tokens: usize, seconds: f64) {
        let place = self.tokens.partition_point(|&other| other < tokens);
        self.tokens.insert(place, tokens);
        // A clock may be too coarse for a tiny layer.
        self.seconds_of
            .insert(place, seconds.max(f64::MIN_POSITIVE));
        if let Some(growth) = LayerGrowth::fit(self.window, &self.fitted()) {
            self.growth = growth;
        }
    }
}

/// Times the layers of a model on the first tokens of a prompt; `on_pass` hears which layer is at work on how many.
///
/// Errors: as [`LayerStream::check`] and [`StreamedLayer::prefill`].
pub fn calibrate(
    stream: &mut LayerStream<'_>,
    ids: &[u32],
    options: &MeasureOptions,
    bound: CalibrationBound,
    on_pass: &mut dyn FnMut(usize, usize),
) -> Result<Calibration> {
    let ids = &ids[..ids.len().min(bound.tokens)];
    stream.check(ids)?;
    let mut clock = LayerClock {
        began: Instant::now(),
        time: bound.time.as_secs_f64(),
        rows: stream.embedding()?.rows_of(ids)?,
        device: stream.device(),
        options,
        windowed: !stream.config().windows().is_empty(),
        on_pass,
    };
    let firsts = first_of_each_kind(stream);
    let mut reading = ReadingTimes::default();
    let (mut kinds, mut behind_first) = (Vec::new(), None);
    for &number in &firsts {
        let began = Instant::now();
        let layer = stream.layer(number)?;
        clock.device.synchronize()?;
        if number == 0 {
            reading.seconds_again = began.elapsed().as_secs_f64();
        }
        let until = LENGTHS * clock.time * (kinds.len() + 1) as f64 / firsts.len() as f64;
        let (times, hidden) = clock.lengths(&layer, until)?;
        behind_first = behind_first.or(times.fitted().pop().map(|longest| (hidden, longest)));
        kinds.push(times);
    }
    let mut others = Vec::new();
    if let Some((mut hidden, (tokens, mut expected))) = behind_first {
        for number in (1..stream.config().num_hidden_layers()).take(OTHERS) {
            let touched = firsts.contains(&number);
            let layer = clock.read(stream, number, touched, &mut reading)?;
            if clock.spent() + expected > clock.time {
                break;
            }
            expected = clock.pass(&layer, &mut hidden, tokens)?;
            others.push(LayerTime {
                layer: number,
                window: layer.kind().window,
                tokens,
                seconds: expected,
            });
        }
    }
    Ok(Calibration {
        seconds: clock.began.elapsed().as_secs_f64(),
        kinds,
        others,
        reading,
    })
}

/// The first layer with every window that there is, in order.
fn first_of_each_kind(stream: &LayerStream<'_>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let layers = stream.config().layers.iter().enumerate();
    layers
        .filter(|(_, kind)| seen.insert(kind.window))
        .map(|(number, _)| number)
        .collect()
}

/// Halves of a prompt's length down to the shortest, in ascending order.
fn halves(tokens: usize) -> Vec<usize> {
    let halves = std::iter::successors(Some(tokens), |t| Some(t / 2));
    let mut all: Vec<usize> = halves
        .take_while(|&t| t == tokens || t >= SHORTEST)
        .collect();
    all.reverse();
    all
}

/// The middle one of repeats, of two the quicker: what is done for the first time is not what is asked.
fn lower_median(seconds: &mut [f64]) -> f64 {
    seconds.sort_unstable_by(f64::total_cmp);
    seconds[(seconds.len() - 1) / 2]
}

/// Times what is done with a prompt's rows.
struct LayerClock<'a> {
    began: Instant,
    /// Seconds that there are.
    time: f64,
    /// The prompt before the first layer.
    rows: Tensor,
    device: &'a Device,
    options: &'a MeasureOptions,
    windowed: bool,
    on_pass: &'a mut dyn FnMut(usize, usize),
}

impl LayerClock<'_> {
    /// Seconds since the beginning.
    fn spent(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The first rows of the prompt, before the first layer.
    fn embedded(&self, tokens: usize) -> Result<HiddenStates> {
        let mut hidden = HiddenStates::new(tokens, RowShape::of(&self.rows)?, None);
        for run in hidden.runs() {
            let rows = self.rows.narrow(0, run.start, run.len())?;
            hidden.put(run, rows.force_contiguous()?)?;
        }
        Ok(hidden)
    }

    /// Seconds of a pass through a layer with everything that is measured of it.
    fn pass(
        &mut self,
        layer: &StreamedLayer<'_>,
        hidden: &mut HiddenStates,
        tokens: usize,
    ) -> Result<f64> {
        (self.on_pass)(layer.number(), tokens);
        self.device.synchronize()?;
        let began = Instant::now();
        let mut nobody = |_: usize| {};
        let mut profiler = Profiler::new(self.options, &mut nobody);
        layer.prefill(hidden, tokens, &mut profiler)?;
        let measures = profiler.finish();
        let span = LayerSpan {
            first: layer.number(),
            layers: &measures,
            windowed: self.windowed,
        };
        all_tables(&PromptLabel::default(), span, self.options);
        self.device.synchronize()?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Times a layer at longer and longer parts of the prompt until `until`, in seconds since the beginning; the rows of the
    /// longest behind the layer come with it.
    fn lengths(
        &mut self,
        layer: &StreamedLayer<'_>,
        until: f64,
    ) -> Result<(KindTimes, HiddenStates)> {
        let whole = self.rows.dim(0)?;
        let mut longest = self.embedded(whole.min(GLANCE))?;
        self.pass(layer, &mut longest, whole.min(GLANCE))?;
        let mut times = KindTimes {
            layer: layer.number(),
            window: layer.kind().window,
            tokens: Vec::new(),
            seconds_of: Vec::new(),
            growth: LayerGrowth::default(),
        };
        let parts = halves(whole);
        let mut next = 0;
        while let Some(&tokens) = parts.get(next) {
            longest = self.length(layer, tokens, &mut times)?;
            // Four times as much tells more than twice; what is beyond the last part is not there.
            let steps = [next + 2, next + 1];
            // One length alone does not tell what is fixed: a second is worth more than other layers.
            let until = if next == 0 { self.time } else { until };
            let possible = |step: &usize| {
                let tokens = parts.get(*step);
                tokens.is_some_and(|&tokens| self.spent() + times.expects(tokens) <= until)
            };
            match steps.into_iter().find(possible) {
                Some(step) => next = step,
                None => break,
            }
        }
        // Half of the longest may have been passed over.
        if let Some(&tokens) = next.checked_sub(1).and_then(|half| parts.get(half))
            && !times.tokens.contains(&tokens)
            && self.spent() + times.expects(tokens) <= until
        {
            self.length(layer, tokens, &mut times)?;
        }
        Ok((times, longest))
    }

    /// Times a layer at a length, which joins the others, and gives the rows behind it.
    fn length(
        &mut self,
        layer: &StreamedLayer<'_>,
        tokens: usize,
        times: &mut KindTimes,
    ) -> Result<HiddenStates> {
        let mut seconds = Vec::new();
        let hidden = loop {
            let mut hidden = self.embedded(tokens)?;
            seconds.push(self.pass(layer, &mut hidden, tokens)?);
            if seconds.len() == REPEATS || seconds.iter().sum::<f64>() > QUICK * self.time {
                break hidden;
            }
        };
        times.add(tokens, lower_median(&mut seconds));
        Ok(hidden)
    }

    /// Reads a layer; if it was not `touched` before, what that took is noted, and what its pages took that were first needed by a
    /// short pass.
    fn read<'m>(
        &mut self,
        stream: &mut LayerStream<'m>,
        number: usize,
        touched: bool,
        reading: &mut ReadingTimes,
    ) -> Result<StreamedLayer<'m>> {
        let (began, before) = (Instant::now(), bytes_read_from_disk());
        let layer = stream.layer(number)?;
        self.device.synchronize()?;
        let took = began.elapsed().as_secs_f64();
        if touched {
            return Ok(layer);
        }
        let tokens = GLANCE.min(self.rows.dim(0)?);
        let mut passes = [0.0; 2];
        for seconds in &mut passes {
            let mut hidden = self.embedded(tokens)?;
            *seconds = self.pass(&layer, &mut hidden, tokens)?;
        }
        reading.layers.push(number);
        reading
            .seconds_of
            .push((took + passes[0] - passes[1]).max(0.0));
        reading.bytes += layer.bytes();
        if let (Some(before), Some(after)) = (before, bytes_read_from_disk()) {
            *reading.from_disk.get_or_insert(0) += after - before;
        }
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_prompt_are_its_halves() {
        assert_eq!(halves(2038), [63, 127, 254, 509, 1019, 2038]);
        assert_eq!(halves(64), [32, 64]);
        assert_eq!(halves(63), [63]);
        assert_eq!(halves(1), [1]);
    }

    #[test]
    fn lengths_stand_in_order_whenever_they_were_timed() {
        let mut times = KindTimes {
            layer: 0,
            window: None,
            tokens: Vec::new(),
            seconds_of: Vec::new(),
            growth: LayerGrowth::default(),
        };
        for tokens in [40, 10, 160, 80, 320] {
            times.add(tokens, tokens as f64);
        }
        assert_eq!(times.tokens, [10, 40, 80, 160, 320]);
        assert_eq!(times.seconds_of, [10.0, 40.0, 80.0, 160.0, 320.0]);
        assert_eq!(times.fitted()[0], (40, 40.0), "the longest four");
        assert!((times.growth.seconds(None, 1000) - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn one_slow_repeat_says_nothing() {
        assert_eq!(lower_median(&mut [3.0]), 3.0);
        assert_eq!(lower_median(&mut [9.0, 3.0]), 3.0);
        assert_eq!(lower_median(&mut [9.0, 3.0, 4.0]), 4.0);
    }
}
