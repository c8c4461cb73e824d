//! Measurements of time and bytes made up for tests.

use super::sample::Sample;
use crate::bench::{Bench, BenchModel, Growth, GrowthPoint, Machine, SavedRow};
use crate::eval::RepeatSpread;
use crate::eval::speed::{self, Measurement, Mode, Speed};
use crate::run::{DataRecord, Made, ModelRecord};
use serde_json::Value;

impl Sample {
    /// No cache, the full one and two budgets, three repeats each, at the lengths of the sample's prompts.
    pub fn speed(&self) -> Speed {
        let modes = [
            (Mode::NoCache, 1.5, 0.0),
            (Mode::Full, 0.05, 46.0),
            (Mode::Budget(256), 0.03, 11.5),
            (Mode::Budget(64), 0.02, 2.9),
        ];
        let mut measurements = Vec::new();
        for &tokens in &self.tokens {
            for (mode, ms, kilobytes) in modes {
                measurements.extend((0..3).map(|repeat| Measurement {
                    length: tokens as usize,
                    tokens: tokens as usize,
                    mode,
                    repeat,
                    ms_per_token: 30.0 + f64::from(tokens) * ms + 2.0 * repeat as f64,
                    kv_bytes: (f64::from(tokens) * kilobytes * 1e3) as usize,
                    resident_bytes: None,
                    prefill_s: 1.0,
                }));
            }
        }
        let meta = self.speed_meta();
        Speed { meta, measurements }
    }

    fn speed_meta(&self) -> speed::SpeedRecord {
        let of_profile = self.meta();
        let model = ModelRecord {
            device: "Cpu".to_owned(),
            ..of_profile.model
        };
        let settings = speed::SpeedSettings {
            threads: 2,
            scorer: "snapkv".to_owned(),
            scorer_parameters: Value::Null,
            sinks: 4,
            window: 32,
            lengths: self.tokens.iter().map(|&t| t as usize).collect(),
            budgets: vec![64, 256],
            steps: 16,
            uncached_steps: 1,
            repeats: 3,
            seed: 0,
        };
        let data = DataRecord {
            prompts_sha256: "b2".repeat(32),
            ..of_profile.data
        };
        speed::SpeedRecord::new("kvprof speed --model sample", model, data, settings)
    }

    /// Bare prefill, three kinds of profiling and decoding, at one, two and four times the length of the
    /// first prompt; CPU seconds are twice those on the wall.
    pub fn bench(&self) -> Bench {
        let (linear, quadratic) = (2.31e-3, 1.55e-7);
        let first = self.tokens.first().map_or(512, |&t| t as usize);
        let lengths = [first, 2 * first, 4 * first];
        let seconds = |tokens: usize| {
            let t = tokens as f64;
            linear * t + quadratic * t * t
        };
        let spread = |middle: f64| RepeatSpread {
            median: middle,
            least: middle * 0.97,
            most: middle * 1.05,
        };
        let mut rows = Vec::new();
        for length in lengths {
            for (workload, times) in [
                ("prefill", 1.0),
                ("profile-32", 1.1),
                ("profile-128", 1.25),
                ("profile-all", 2.0 + length as f64 / 1e4),
                ("decode-full", 0.3),
            ] {
                let wall = times * seconds(length);
                rows.push(SavedRow {
                    length,
                    workload: workload.to_owned(),
                    wall: spread(wall),
                    cpu: Some(spread(2.0 * wall)),
                    ratio: spread(times),
                    cpu_ratio: Some(spread(times)),
                });
            }
        }
        let growth = |times: f64| Growth {
            linear: times * linear,
            quadratic: times * quadratic,
            linear_at_limit: Some(linear / 2.0),
            quadratic_at_limit: Some(quadratic / 4.0),
            points: (lengths.iter())
                .map(|&tokens| GrowthPoint {
                    tokens,
                    seconds: times * seconds(tokens),
                    fitted: times * seconds(tokens),
                    residual: 0.0,
                    of_limit: None,
                })
                .collect(),
        };
        Bench {
            made: Made::by("kvprof bench --model sample", 1),
            model: BenchModel {
                name: self.model.to_owned(),
                source: "made up <here> & now".to_owned(),
                sha256: "a1".repeat(32),
                device: "Cpu".to_owned(),
                dtype: "f32".to_owned(),
            },
            machine: Machine {
                cpu: Some("Made Up 9000".to_owned()),
                threads: 2,
                load: None,
            },
            repeats: 3,
            rows,
            growth: Some(growth(1.0)),
            cpu_growth: Some(growth(2.0)),
            sha256: "b2".repeat(32),
        }
    }
}
