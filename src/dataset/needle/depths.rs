//! Depths of needles, as a list or as a range with a step.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Most depths that one text may name.
const MOST: usize = 1_001;

/// Where needles lie in their haystacks, ascending and without repetition.
///
/// Written as single depths and ranges `START..END/STEP`, separated by commas; a range ends with its
/// END if steps lead there.
///
/// Units: per cent of the haystack before the needle.
///
/// ```
/// use kvprof::dataset::needle::Depths;
///
/// let depths: Depths = "0..100/25,99.5".parse()?;
/// assert_eq!(depths.percent(), [0.0, 25.0, 50.0, 75.0, 99.5, 100.0]);
/// # Ok::<_, kvprof::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Depths(Vec<f64>);

impl Depths {
    /// Depths from numbers.
    ///
    /// Errors: [`Error::Invalid`] for none, or for one outside 0 to 100.
    pub fn new(mut percent: Vec<f64>) -> Result<Self> {
        if percent.is_empty() {
            return Err(Error::invalid("number of depths", 0, "one is needed"));
        }
        if let Some(wrong) = percent.iter().find(|d| !(0.0..=100.0).contains(*d)) {
            let bound = "it must lie between 0 (start) and 100 (end), in per cent of the haystack";
            return Err(Error::invalid("depth of a needle", wrong, bound));
        }
        // A negative zero would be another depth in names of records.
        percent.iter_mut().for_each(|d| *d += 0.0);
        percent.sort_by(f64::total_cmp);
        percent.dedup();
        Ok(Self(percent))
    }

    /// The depths, ascending.
    ///
    /// Units: per cent.
    pub fn percent(&self) -> &[f64] {
        &self.0
    }
}

impl FromStr for Depths {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut percent = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once("..") {
                None => percent.push(number(text, part)?),
                Some((start, rest)) => {
                    let (end, step) = rest.split_once('/').ok_or_else(|| unreadable(text))?;
                    let number = |part: &str| number(text, part);
                    percent.extend(range(number(start)?, number(end)?, number(step)?)?);
                }
            }
            if percent.len() > MOST {
                return Err(too_many());
            }
        }
        Self::new(percent)
    }
}

impl fmt::Display for Depths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depths: Vec<String> = self.0.iter().map(f64::to_string).collect();
        f.write_str(&depths.join(","))
    }
}

fn range(start: f64, end: f64, step: f64) -> Result<Vec<f64>> {
    if !(step > 0.0 && end >= start) {
        let bound = "a range goes upwards by a step above 0, as in 0..100/10";
        let value = format!("{start}..{end}/{step}");
        return Err(Error::invalid("range of depths", value, bound));
    }
    // Steps such as 0.1 do not add up exactly: the last one may miss the end by a hair.
    let count = ((end - start) / step + 1e-6).floor();
    if count >= MOST as f64 {
        return Err(too_many());
    }
    let at = |i: u32| (start + step * f64::from(i)).min(end);
    // Rounding also turns 0.30000000000000004 back into 0.3.
    let rounded = |depth: f64| (depth * 1e9).round() / 1e9;
    Ok((0..=count as u32).map(|i| rounded(at(i))).collect())
}

fn number(whole: &str, part: &str) -> Result<f64> {
    part.trim().parse().map_err(|_| unreadable(whole))
}

fn unreadable(text: &str) -> Error {
    let bound = "depths are per cent as in 0,50,100 or 0..100/10 (START..END/STEP)";
    Error::invalid("list of depths", format!("'{text}'"), bound)
}

fn too_many() -> Error {
    let count = format!("more than {MOST}");
    Error::invalid("number of depths", count, "widen the step")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<f64> {
        text.parse::<Depths>().unwrap().percent().to_vec()
    }

    #[test]
    fn lists_and_ranges_are_read() {
        assert_eq!(read("0,50,100"), [0.0, 50.0, 100.0]);
        assert_eq!(read(" 100 , 0,50 ,0"), [0.0, 50.0, 100.0]);
        let tenths: Vec<f64> = (0..=10).map(|i| f64::from(i) * 10.0).collect();
        assert_eq!(read("0..100/10"), tenths);
        assert_eq!(read("10..35/10"), [10.0, 20.0, 30.0]);
        assert_eq!(read("0..0.3/0.1"), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(read("50..50/1"), [50.0]);
        assert_eq!(read("-0"), [0.0]);
        assert_eq!(
            "0..100/50".parse::<Depths>().unwrap().to_string(),
            "0,50,100"
        );
    }

    #[test]
    fn what_makes_no_depths_is_refused() {
        for (text, part) in [
            ("", "is '', but depths are per cent"),
            ("0..100", "0..100/10 (START..END/STEP)"),
            ("a", "0..100/10"),
            ("0..100/0", "range of depths is 0..100/0"),
            ("100..0/10", "goes upwards"),
            ("0..100/-1", "goes upwards"),
            ("0..100/NaN", "goes upwards"),
            (
                "101",
                "is 101, but it must lie between 0 (start) and 100 (end)",
            ),
            ("-1", "must lie between"),
            ("nan", "must lie between"),
            ("0..100/0.001", "widen the step"),
            ("0..inf/1", "widen the step"),
        ] {
            let problem = text.parse::<Depths>().unwrap_err().to_string();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        assert!(Depths::new(vec![]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-0-9.,/ einfNa]{0,20}") {
            if let Ok(depths) = text.parse::<Depths>() {
                prop_assert!(depths.percent().windows(2).all(|w| w[0] < w[1]));
                prop_assert_eq!(depths.to_string().parse::<Depths>().unwrap(), depths);
            }
        }
    }
}
