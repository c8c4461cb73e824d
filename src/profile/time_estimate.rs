//! How long a run should take, from what a calibration timed.

use serde::Serialize;

use super::calibration::{Calibration, KindTimes, ReadingTimes};
use super::layer_growth::LayerGrowth;
use crate::model::config::ModelConfig;
use crate::model::operations::{head_flops, layer_flops};

/// Seconds, and between which the same reckoning gives them from the quickest and the slowest of what was timed.
///
/// Differs: the range is what the timings themselves leave open: one length left out of the fit, or one alone read as all of
/// its terms; all layers as quick or slow as one of those timed. It is no confidence interval, and knows nothing of a machine that will be busier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SecondsRange {
    /// The estimate.
    pub seconds: f64,
    /// At the least.
    pub least: f64,
    /// At the most.
    pub most: f64,
}

impl SecondsRange {
    /// An estimate, and what else it might be.
    fn around(seconds: f64, others: impl IntoIterator<Item = f64>) -> Self {
        let own = Self {
            seconds,
            least: seconds,
            most: seconds,
        };
        others.into_iter().fold(own, |range, other| Self {
            least: range.least.min(other),
            most: range.most.max(other),
            ..range
        })
    }

    /// Seconds of which nothing else is known.
    pub fn exactly(seconds: f64) -> Self {
        Self::around(seconds, [])
    }

    /// Both, one after the other.
    pub fn plus(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            least: self.least + other.least,
            most: self.most + other.most,
        }
    }

    /// So many times.
    fn times(self, factor: Self) -> Self {
        Self {
            seconds: self.seconds * factor.seconds,
            least: self.least * factor.least,
            most: self.most * factor.most,
        }
    }
}

/// What is asked of a calibration.
#[derive(Clone, Copy, Debug)]
pub struct TimedRun<'a> {
    /// The model's geometry.
    pub config: &'a ModelConfig,
    /// Lengths of the prompts, one at a time.
    pub lengths: &'a [usize],
}

impl TimedRun<'_> {
    /// All layers over all prompts, with everything that is measured.
    pub fn layers(&self, calibration: &Calibration) -> SecondsRange {
        let of_kinds = calibration.kinds.iter().map(|kind| self.kind(kind));
        let sum = of_kinds.fold(SecondsRange::default(), SecondsRange::plus);
        let layers = self.config.num_hidden_layers();
        sum.times(against_first(calibration, layers))
    }

    /// All layers of one kind, if they were all as the first of it.
    fn kind(&self, kind: &KindTimes) -> SecondsRange {
        let layers = self.config.layers.iter();
        let alike = layers.filter(|layer| layer.window == kind.window).count() as f64;
        let seconds = |growth: &LayerGrowth| -> f64 {
            let lengths = self.lengths.iter();
            let all: f64 = lengths.map(|&t| growth.seconds(kind.window, t)).sum();
            alike * all
        };
        let fitted = kind.fitted();
        let others: Vec<LayerGrowth> = match fitted[..] {
            [only] => LayerGrowth::possible(kind.window, only).into(),
            _ => without_one(kind.window, &fitted),
        };
        SecondsRange::around(seconds(&kind.growth), others.iter().map(seconds))
    }

    /// The output head for the last token of every prompt, at the pace of the first layer's products.
    pub fn head(&self, calibration: &Calibration) -> f64 {
        let per_flop = calibration.kinds.first().map_or(0.0, |kind| {
            let of_layer = layer_flops(self.config) / self.config.num_hidden_layers() as f64;
            kind.growth.per_token / of_layer
        });
        self.lengths.len() as f64 * head_flops(self.config) * per_flop
    }

    /// Reading all weights so many times; what follows the first reading finds them in memory if they `stay` there.
    pub fn reading(&self, calibration: &Calibration, times: usize, stay: bool) -> SecondsRange {
        let layers = self.config.num_hidden_layers() as f64;
        let times = times as f64;
        let (reading, again) = (&calibration.reading, calibration.reading.seconds_again);
        let (first, more) = if stay {
            (layers, layers * (times - 1.0).max(0.0) * again)
        } else {
            (layers * times, 0.0)
        };
        let fresh = fresh_reading(reading);
        SecondsRange {
            seconds: first * fresh.seconds + more,
            least: first * fresh.least + more,
            most: first * fresh.most + more,
        }
    }
}

/// The fits to all lengths but one.
fn without_one(window: Option<usize>, measured: &[(usize, f64)]) -> Vec<LayerGrowth> {
    let fits = (0..measured.len()).filter_map(|left_out| {
        let mut rest = measured.to_vec();
        rest.remove(left_out);
        LayerGrowth::fit(window, &rest)
    });
    fits.collect()
}

/// A layer that nobody has touched.
fn fresh_reading(reading: &ReadingTimes) -> SecondsRange {
    let all = &reading.seconds_of;
    if all.is_empty() {
        return SecondsRange::exactly(reading.seconds_again);
    }
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    SecondsRange::around(mean, all.iter().copied())
}

/// What layers take on the mean of what the first of their kind would.
fn against_first(calibration: &Calibration, layers: usize) -> SecondsRange {
    let others = calibration.others.iter();
    let ratios: Vec<f64> = others
        .filter_map(|other| {
            let mut kinds = calibration.kinds.iter();
            let kind = kinds.find(|kind| kind.window == other.window)?;
            let of_first = kind.growth.seconds(kind.window, other.tokens);
            (of_first > 0.0).then_some(other.seconds / of_first)
        })
        .collect();
    if ratios.is_empty() {
        return SecondsRange::exactly(1.0);
    }
    let firsts = calibration.kinds.len().min(layers) as f64;
    let rest = layers as f64 - firsts;
    let all = |of_rest: f64| (firsts + rest * of_rest) / layers as f64;
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    SecondsRange::around(all(mean), ratios.into_iter().map(all))
}

#[cfg(test)]
mod tests {
    use super::super::calibration::LayerTime;
    use super::*;
    use crate::model::config::{FAMILIES, LayerKind};

    fn config(windows: &[Option<usize>]) -> ModelConfig {
        let kind = |&window: &Option<usize>| LayerKind { window, rope: 0 };
        ModelConfig {
            family: FAMILIES[0],
            vocab_size: 11,
            hidden_size: 5,
            intermediate_size: 7,
            layers: windows.iter().map(kind).collect(),
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 3,
            max_position_embeddings: 100,
            rms_norm_eps: 1e-5,
            ropes: vec![],
            attention_scale: None,
            tie_word_embeddings: true,
        }
    }

    fn kind(layer: usize, window: Option<usize>, per_token: f64) -> KindTimes {
        KindTimes {
            layer,
            window,
            tokens: vec![10],
            seconds_of: vec![10.0 * per_token],
            growth: LayerGrowth {
                per_token,
                ..LayerGrowth::default()
            },
        }
    }

    fn calibration(kinds: Vec<KindTimes>) -> Calibration {
        Calibration {
            seconds: 1.0,
            kinds,
            others: vec![],
            reading: ReadingTimes {
                layers: vec![1, 2],
                seconds_of: vec![2.0, 4.0],
                bytes: 100,
                from_disk: None,
                seconds_again: 0.5,
            },
        }
    }

    #[test]
    fn kinds_of_layers_are_summed_over_prompts() {
        let config = config(&[Some(2), Some(2), None]);
        let run = TimedRun {
            config: &config,
            lengths: &[10, 30],
        };
        let mut timed = calibration(vec![kind(0, Some(2), 1.0), kind(2, None, 3.0)]);
        // 40 tokens through two layers of one second and one of three; longer prompts cost more if all is in pairs.
        let whole = run.layers(&timed);
        assert_eq!(whole.seconds, 40.0 * 5.0);
        assert!(whole.least < 190.0 && whole.most > 210.0, "{whole:?}");
        for kind in &mut timed.kinds {
            kind.tokens.push(20);
            kind.seconds_of.push(2.0 * kind.seconds_of[0]);
        }
        // One that took twice, one 1.5 times what the first does: the last third of all layers is as these on the mean.
        let other = |window, seconds| LayerTime {
            layer: 1,
            window,
            tokens: 10,
            seconds,
        };
        timed.others = vec![other(Some(2), 20.0), other(None, 45.0)];
        let found = run.layers(&timed);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(found.seconds, 200.0 * (2.0 + 1.75) / 3.0);
        near(found.least, 200.0 * (2.0 + 1.5) / 3.0);
        near(found.most, 200.0 * (2.0 + 2.0) / 3.0);
    }

    #[test]
    fn a_length_left_out_widens_the_range() {
        let config = config(&[None]);
        let run = TimedRun {
            config: &config,
            lengths: &[40],
        };
        let straight = vec![(10, 10.0), (20, 20.0), (40, 40.0)];
        let bent = vec![(10, 10.0), (20, 20.0), (40, 60.0)];
        let range = |measured: Vec<(usize, f64)>| {
            let (tokens, seconds_of): (Vec<_>, Vec<_>) = measured.iter().copied().unzip();
            run.layers(&calibration(vec![KindTimes {
                tokens,
                seconds_of,
                growth: LayerGrowth::fit(None, &measured).unwrap(),
                ..kind(0, None, 0.0)
            }]))
        };
        let (straight, bent) = (range(straight), range(bent));
        assert!(
            (straight.most - straight.least).abs() < 1e-6,
            "{straight:?}"
        );
        assert!(
            (bent.least - 40.0).abs() < 1e-6,
            "without the longest: {bent:?}"
        );
        assert!(bent.least < bent.seconds && bent.seconds <= bent.most);
    }

    #[test]
    fn weights_that_stay_are_read_from_disk_once() {
        let config = config(&[None; 4]);
        let run = TimedRun {
            config: &config,
            lengths: &[10],
        };
        let mut timed = calibration(vec![kind(0, None, 1.0)]);
        let seconds = |timed: &Calibration, times, stay| run.reading(timed, times, stay).seconds;
        assert_eq!(seconds(&timed, 1, true), 4.0 * 3.0);
        assert_eq!(seconds(&timed, 3, true), 4.0 * (3.0 + 0.5 + 0.5));
        let disk = run.reading(&timed, 3, false);
        assert_eq!([disk.least, disk.seconds, disk.most], [24.0, 36.0, 48.0]);
        // A model of one layer has none that was not touched.
        timed.reading.seconds_of.clear();
        assert_eq!(seconds(&timed, 2, false), 4.0 * 2.0 * 0.5);
    }

    #[test]
    fn the_head_runs_at_the_pace_of_products() {
        let config = config(&[None, None]);
        let run = TimedRun {
            config: &config,
            lengths: &[10, 20, 30],
        };
        // 570 operations a token in a second; the head has 110.
        let found = run.head(&calibration(vec![kind(0, None, 1.0)]));
        assert!((found - 3.0 * 110.0 / 570.0).abs() < 1e-12, "{found}");
    }
}
