//! Rotary embedding: the frequency of every pair of dimensions, and how models stretch them over long texts.

use std::f64::consts::TAU;

use crate::error::{Error, Result};

/// How one kind of layers rotates queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per position of each pair of dimensions; dimensions beyond twice their number are not rotated.
    pub frequencies: Vec<f32>,
    /// Those of texts that are longer than a number of tokens.
    pub long: Option<LongTexts>,
    /// What cosines and sines are multiplied by.
    pub magnitude: f32,
}

/// Frequencies of long texts, which hold for all of their tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct LongTexts {
    /// The longest text that is rotated by the others.
    pub above: usize,
    /// Radians per position.
    pub frequencies: Vec<f32>,
}

impl Rope {
    /// Frequencies for a text of so many tokens.
    pub fn frequencies_for(&self, tokens: usize) -> &[f32] {
        match &self.long {
            Some(long) if tokens > long.above => &long.frequencies,
            _ => &self.frequencies,
        }
    }
}

/// How frequencies are stretched, as a model declares it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scaling {
    /// Not at all.
    None,
    /// Positions are divided by a factor.
    Linear(f64),
    /// Each frequency is divided by its own factor.
    Factors(Vec<f32>),
    /// Slow frequencies are divided by a factor, fast ones are not, those between in part.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// The same by the number of turns within the original context, with a magnitude.
    Yarn {
        factor: f64,
        original: f64,
        beta_fast: f64,
        beta_slow: f64,
        magnitude: Option<f64>,
    },
    /// Each frequency is divided by its own factor, another one in texts longer than the original context.
    Long {
        short: Vec<f32>,
        long: Vec<f32>,
        original: usize,
        magnitude: f64,
    },
}

/// The names of all scalings, for messages.
pub(super) const SCALINGS: &str = "none, linear, llama3, yarn, longrope";

/// What cosines and sines are multiplied by under longrope: `sqrt(1 + ln(context / original) / ln(original))`.
pub(super) fn long_magnitude(context: f64, original: f64) -> f64 {
    if context <= original {
        return 1.0;
    }
    (1.0 + (context / original).ln() / original.ln()).sqrt()
}

/// The same under yarn: `0.1 ln(factor) + 1`.
pub(super) fn yarn_magnitude(factor: f64) -> f64 {
    0.1 * factor.max(1.0).ln() + 1.0
}

/// Frequencies over `rotated` dimensions to the base `theta`.
///
/// Differs: in float32 step by step, as models were trained and as references compute them.
/// Errors: [`Error::Invalid`] for numbers that are not positive and finite, or of another number than pairs.
pub(super) fn rope(theta: f64, rotated: usize, scaling: &Scaling) -> Result<Rope> {
    positive("RoPE base", f64::from(theta as f32))?;
    let pairs = rotated / 2;
    let powers: Vec<f32> = (0..pairs)
        .map(|i| (theta as f32).powf((2 * i) as f32 / rotated as f32))
        .collect();
    let plain = || powers.iter().map(|p| 1.0 / p);
    let mut rope = Rope {
        frequencies: Vec::new(),
        long: None,
        magnitude: 1.0,
    };
    rope.frequencies = match scaling {
        Scaling::None => plain().collect(),
        Scaling::Linear(factor) => {
            positive("RoPE factor", *factor)?;
            plain().map(|f| f / *factor as f32).collect()
        }
        Scaling::Factors(factors) => {
            check_factors(factors, pairs)?;
            plain().zip(factors).map(|(f, factor)| f / factor).collect()
        }
        Scaling::Llama3 {
            factor,
            low,
            high,
            original,
        } => {
            positive("RoPE factor", *factor)?;
            positive("RoPE original context", *original)?;
            positive("RoPE low_freq_factor", *low)?;
            positive("difference of RoPE's high and low factor", high - low)?;
            let stretch = |f| stretched_by_length(f, *factor as f32, [*low, *high], *original);
            plain().map(stretch).collect()
        }
        Scaling::Yarn {
            factor,
            original,
            beta_fast,
            beta_slow,
            magnitude,
        } => {
            positive("RoPE factor", *factor)?;
            positive("RoPE original context", *original)?;
            positive("RoPE beta_fast", *beta_fast)?;
            positive("RoPE beta_slow", *beta_slow)?;
            rope.magnitude = magnitude.unwrap_or_else(|| yarn_magnitude(*factor)) as f32;
            let turns =
                |beta: &f64| rotated as f64 * (original / (beta * TAU)).ln() / (2.0 * theta.ln());
            let first = turns(beta_fast).floor().max(0.0) as f32;
            let last = turns(beta_slow).ceil().min(rotated as f64 - 1.0) as f32;
            let width = if first == last { 0.001 } else { last - first };
            let kept = |i: usize| 1.0 - ((i as f32 - first) / width).clamp(0.0, 1.0);
            let mixed = |(i, power): (usize, &f32)| {
                let (far, near) = (1.0 / (*factor as f32 * power), 1.0 / power);
                far * (1.0 - kept(i)) + near * kept(i)
            };
            powers.iter().enumerate().map(mixed).collect()
        }
        Scaling::Long {
            short,
            long,
            original,
            magnitude,
        } => {
            positive("RoPE original context", *original as f64)?;
            let divided = |factors: &[f32]| -> Result<Vec<f32>> {
                check_factors(factors, pairs)?;
                let both = powers.iter().zip(factors);
                Ok(both.map(|(power, factor)| 1.0 / (factor * power)).collect())
            };
            rope.magnitude = *magnitude as f32;
            rope.long = Some(LongTexts {
                above: *original,
                frequencies: divided(long)?,
            });
            divided(short)?
        }
    };
    positive("RoPE magnitude", f64::from(rope.magnitude))?;
    let all = rope.long.iter().flat_map(|long| &long.frequencies);
    match all.chain(&rope.frequencies).find(|f| !f.is_finite()) {
        Some(f) => Err(Error::invalid("RoPE frequency", f, "it must be finite")),
        None => Ok(rope),
    }
}

/// Llama 3's rule, by how many tokens a whole turn takes.
fn stretched_by_length(f: f32, factor: f32, [low, high]: [f64; 2], original: f64) -> f32 {
    let length = std::f32::consts::TAU / f;
    if length > (original / low) as f32 {
        f / factor
    } else if length < (original / high) as f32 {
        f
    } else {
        let kept = (original as f32 / length - low as f32) / (high as f32 - low as f32);
        (1.0 - kept) * f / factor + kept * f
    }
}

fn positive(what: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(what, value, "it must be above 0 and finite"))
}

fn check_factors(factors: &[f32], pairs: usize) -> Result<()> {
    if factors.len() != pairs {
        let bound = format!("one for each of the {pairs} pairs of dimensions is needed");
        return Err(Error::invalid("RoPE factors", factors.len(), bound));
    }
    (factors.iter()).try_for_each(|f| positive("RoPE factor", f64::from(*f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: &Scaling) -> Vec<f32> {
        rope(10_000.0, 4, scaling).unwrap().frequencies
    }

    #[test]
    fn base_and_factors_make_frequencies() {
        assert_eq!(frequencies(&Scaling::None), [1.0, 0.01]);
        assert_eq!(frequencies(&Scaling::Linear(4.0)), [0.25, 0.0025]);
        assert_eq!(
            frequencies(&Scaling::Factors(vec![1.0, 8.0])),
            [1.0, 0.00125]
        );
    }

    #[test]
    fn slow_turns_are_stretched_and_fast_ones_are_not() {
        let llama3 = |original| Scaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original,
        };
        // A turn takes 6.28 and 628 tokens.
        assert_eq!(frequencies(&llama3(64.0)), [1.0, 0.00125]);
        assert_eq!(frequencies(&llama3(8192.0)), [1.0, 0.01]);
        let between = frequencies(&llama3(1256.0))[1];
        let kept = (1256.0 / 628.318_5 - 1.0) / 3.0;
        assert!((between - (0.00125 * (1.0 - kept) + 0.01 * kept)).abs() < 1e-8);
    }

    #[test]
    fn long_texts_have_their_own_frequencies() {
        let scaling = Scaling::Long {
            short: vec![1.0, 2.0],
            long: vec![4.0, 8.0],
            original: 100,
            magnitude: 1.19,
        };
        let rope = rope(10_000.0, 4, &scaling).unwrap();
        assert_eq!(rope.frequencies_for(100), [1.0, 0.005]);
        assert_eq!(rope.frequencies_for(101), [0.25, 0.00125]);
        assert_eq!(rope.magnitude, 1.19);
        assert_eq!(long_magnitude(50.0, 100.0), 1.0);
        assert!((long_magnitude(131_072.0, 4096.0) - 1.190_238).abs() < 1e-6);
    }

    #[test]
    fn numbers_without_a_meaning_are_refused() {
        for scaling in [
            Scaling::Linear(0.0),
            Scaling::Linear(f64::NAN),
            Scaling::Factors(vec![1.0, 0.0]),
            Scaling::Factors(vec![1.0]),
            Scaling::Llama3 {
                factor: 8.0,
                low: 4.0,
                high: 4.0,
                original: 100.0,
            },
            Scaling::Llama3 {
                factor: 8.0,
                low: 0.0,
                high: 4.0,
                original: 100.0,
            },
            Scaling::Long {
                short: vec![1.0, 2.0],
                long: vec![4.0, 8.0],
                original: 1,
                magnitude: long_magnitude(100.0, 1.0),
            },
            Scaling::Yarn {
                factor: 4.0,
                original: 100.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                magnitude: Some(1e300),
            },
        ] {
            assert!(rope(10_000.0, 4, &scaling).is_err(), "{scaling:?}");
        }
        assert!(rope(0.0, 4, &Scaling::None).is_err());
    }
}
