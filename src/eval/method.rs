//! A method: how much each head may keep, by which rule tokens are ranked, how a layer's budget is spent.

use serde_json::{Map, Value, json};

use crate::budget::{ALLOCATORS, Allocator, Granularity};
use crate::error::{Error, Result};
use crate::profile::{MeasureOptions, Profile};
use crate::registry;
use crate::select::{HeadSplit, SCORERS, Scorer};

/// A method that has a name of its own.
pub struct NamedMethod {
    /// Name on the command line and in tables.
    pub name: &'static str,
    /// Its three axes spelled out; empty for the full cache.
    pub spelled: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
}

/// Methods with names; every other combination is spelled `STRATEGY+SCORER+SPLIT`.
pub const METHODS: &[NamedMethod] = &[
    named("full", "", "the full cache"),
    named(
        "snapkv",
        "uniform+snapkv",
        "SnapKV: the same budget for every layer",
    ),
    named(
        "ada-kv",
        "uniform+snapkv+pooled",
        "Ada-KV: heads compete for their layer's budget",
    ),
    named("pyramid", "pyramid+snapkv", "PyramidKV: less with depth"),
    named(
        "proportional",
        "proportional+snapkv",
        "the layer's share of LMBA",
    ),
    named(
        "zigzag",
        "zigzag+snapkv",
        "ZigZagKV: a lower bound and the layer's share of LMBA",
    ),
    named(
        "zigzag-lmbo",
        "zigzag-lmbo+snapkv",
        "ZigZagKV's rule on LMBO",
    ),
    named(
        "mass-optimal",
        "mass-optimal+snapkv",
        "the most attention mass in all",
    ),
    named(
        "output-optimal",
        "output-optimal+snapkv",
        "the least change of the layers' outputs",
    ),
    named(
        "streaming",
        "uniform+streaming",
        "StreamingLLM: sinks and the latest tokens",
    ),
    named(
        "h2o",
        "uniform+h2o",
        "H2O on the prompt: attention from all rows",
    ),
    named(
        "tova",
        "uniform+tova",
        "TOVA on the prompt: attention of the last row",
    ),
    named("knorm", "uniform+knorm", "keys of small norm"),
    named("random", "uniform+random", "random tokens"),
    named(
        "oracle",
        "uniform+oracle",
        "attention really received from the full cache's continuation",
    ),
];

const fn named(name: &'static str, spelled: &'static str, about: &'static str) -> NamedMethod {
    NamedMethod {
        name,
        spelled,
        about,
    }
}

/// Where the measurements come from that an allocation is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// The very prompt, in its own prefill.
    Online,
    /// A profile of other prompts.
    Profile,
}

/// How much every KV head may keep.
#[derive(Debug)]
pub struct Allocation {
    /// Name in [`ALLOCATORS`].
    pub strategy: String,
    /// The rule.
    pub allocator: Box<dyn Allocator>,
    /// By layer or by KV head.
    pub granularity: Granularity,
    /// Of what.
    pub measured: Measured,
}

/// Which tokens are kept.
#[derive(Debug)]
pub struct Ranking {
    /// Name in [`SCORERS`].
    pub name: String,
    /// The rule.
    pub scorer: Box<dyn Scorer>,
    /// How a layer's budget is spent on its KV heads.
    pub split: HeadSplit,
}

/// One line of an evaluation.
///
/// Paper: none: house definition. Differs: three axes, never multiplied in code.
#[derive(Debug)]
pub struct Method {
    /// As it was asked for.
    pub name: String,
    /// Allocation and ranking; `None` is the full cache.
    pub cut: Option<(Allocation, Ranking)>,
}

impl Method {
    /// Reads a name of [`METHODS`], or `STRATEGY[+SCORER[+SPLIT]]`.
    ///
    /// STRATEGY is a name with parameters in parentheses, `:head` for budgets by KV head and `@profile` to
    /// allocate from a profile instead of the prompt itself: `zigzag(floor=40):head@profile+snapkv(kernel=5)`.
    /// Errors: [`Error::UnknownName`], [`Error::Invalid`].
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let spelled = match METHODS.iter().find(|m| m.name == text) {
            Some(method) if method.spelled.is_empty() => {
                return Ok(Self {
                    name: text.to_owned(),
                    cut: None,
                });
            }
            Some(method) => method.spelled,
            None => text,
        };
        let mut axes = split_outside_parentheses(spelled, '+').into_iter();
        let strategy = axes.next().unwrap_or_default();
        let scorer = axes.next().unwrap_or("snapkv");
        let split = axes.next().unwrap_or("per-head");
        if let Some(more) = axes.next() {
            let bound = "a method is STRATEGY+SCORER+SPLIT, nothing more";
            return Err(Error::invalid("method", format!("{text}: {more}"), bound));
        }
        let ranking = Ranking::parse(scorer, split)?;
        Ok(Self {
            name: text.to_owned(),
            cut: Some((Allocation::parse(strategy)?, ranking)),
        })
    }

    /// Reads a list separated by commas; commas inside parentheses separate parameters.
    ///
    /// Errors: those of [`Method::parse`]; [`Error::Invalid`] for a method that is named twice.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        let mut methods: Vec<Self> = Vec::new();
        for name in split_outside_parentheses(text, ',') {
            let method = Self::parse(name)?;
            if methods.iter().any(|m| m.name == method.name) {
                return Err(Error::invalid("method", method.name, "it is named twice"));
            }
            methods.push(method);
        }
        Ok(methods)
    }

    /// Refuses an allocation that no prompt's measurements could serve: those of `profile` for `@profile`, else
    /// those of every prefill.
    ///
    /// Errors: as [`Allocator::check`].
    pub fn check(&self, profile: Option<&Profile>) -> Result<()> {
        let Some((allocation, _)) = &self.cut else {
            return Ok(());
        };
        let measured = match (allocation.measured, profile) {
            (Measured::Profile, Some(profile)) => profile.meta.settings.measures.clone(),
            _ => MeasureOptions::default(),
        };
        (allocation.allocator).check(allocation.granularity, &measured)
    }

    /// Whether it needs the prompt's own profile.
    pub fn needs_own_profile(&self) -> bool {
        self.cut.as_ref().is_some_and(|(allocation, _)| {
            allocation.allocator.needs_profile() && allocation.measured == Measured::Online
        })
    }

    /// Whether it is allocated from a profile that must be given.
    pub fn needs_given_profile(&self) -> bool {
        (self.cut.as_ref()).is_some_and(|(a, _)| a.measured == Measured::Profile)
    }

    /// Everything about it, for files.
    pub fn described(&self) -> Value {
        match &self.cut {
            None => json!({"name": self.name}),
            Some((allocation, ranking)) => json!({
                "name": self.name,
                "strategy": allocation.strategy,
                "parameters": allocation.allocator.parameters(),
                "granularity": allocation.granularity,
                "measured": match allocation.measured {
                    Measured::Online => "online",
                    Measured::Profile => "profile",
                },
                "scorer": ranking.name,
                "scorer_parameters": ranking.scorer.parameters(),
                "split": ranking.split.to_string(),
            }),
        }
    }
}

impl Allocation {
    fn parse(text: &str) -> Result<Self> {
        let (text, measured) = match text.strip_suffix("@profile") {
            Some(rest) => (rest, Measured::Profile),
            None => (text, Measured::Online),
        };
        let (text, granularity) = match text.strip_suffix(":head") {
            Some(rest) => (rest, Granularity::Head),
            None => (text, Granularity::Layer),
        };
        let (name, parameters) = with_parameters(text)?;
        if !ALLOCATORS.iter().any(|a| a.name == name) {
            let names = METHODS.iter().map(|m| m.name);
            let strategies = ALLOCATORS.iter().map(|a| a.name);
            let strategies = strategies.filter(|s| !METHODS.iter().any(|m| m.name == *s));
            return Err(Error::unknown("method", name, names.chain(strategies)));
        }
        let allocator = registry::build("strategy", ALLOCATORS, name, parameters)?;
        if measured == Measured::Profile && !allocator.needs_profile() {
            let bound = "the strategy reads no profile: leave @profile out";
            return Err(Error::invalid("method", format!("{name}@profile"), bound));
        }
        Ok(Self {
            strategy: name.to_owned(),
            allocator,
            granularity,
            measured,
        })
    }
}

impl Ranking {
    fn parse(scorer: &str, split: &str) -> Result<Self> {
        let (name, parameters) = with_parameters(scorer)?;
        Ok(Self {
            name: name.to_owned(),
            scorer: registry::build("scorer", SCORERS, name, parameters)?,
            split: split.parse()?,
        })
    }
}

/// `name(key=value,...)` as its name and its parameters.
fn with_parameters(text: &str) -> Result<(&str, Value)> {
    let Some((name, rest)) = text.split_once('(') else {
        return Ok((text, Value::Null));
    };
    let shape = || {
        let bound = "parameters are written NAME(key=value,key=value)";
        Error::invalid("method", text, bound)
    };
    let inside = rest.strip_suffix(')').ok_or_else(shape)?;
    let mut fields = Map::new();
    for pair in inside.split(',').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(shape)?;
        let (key, value) = (key.trim(), registry::typed(value.trim()));
        if key.is_empty() || fields.insert(key.to_owned(), value).is_some() {
            return Err(shape());
        }
    }
    Ok((name, Value::Object(fields)))
}

fn split_outside_parentheses(text: &str, separator: char) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => (),
        }
        c == separator && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_method_can_be_built_and_says_what_it_is() {
        for named in METHODS {
            let method = Method::parse(named.name).unwrap();
            assert_eq!(method.name, named.name);
            assert_eq!(method.cut.is_none(), named.spelled.is_empty());
            if let Some((allocation, _)) = &method.cut {
                assert_eq!(method.described()["strategy"], allocation.strategy.as_str());
            }
        }
    }

    #[test]
    fn axes_are_spelled_out_with_their_parameters() {
        let text = "zigzag(threshold=0.95):head@profile+snapkv(kernel=5,pooling=avg)+pooled:0.3";
        let method = Method::parse(text).unwrap();
        assert!(method.needs_given_profile() && !method.needs_own_profile());
        let described = method.described();
        assert_eq!(described["parameters"]["threshold"], 0.95);
        assert_eq!(described["granularity"], "head");
        assert_eq!(described["scorer_parameters"]["kernel"], 5);
        assert_eq!(described["split"], "pooled:0.3");
        let list =
            Method::parse_list("full,zigzag(threshold=0.9)+snapkv(kernel=5,pooling=avg),h2o");
        let names: Vec<_> = list.unwrap().into_iter().map(|m| m.name).collect();
        assert_eq!(
            names[1],
            "zigzag(threshold=0.9)+snapkv(kernel=5,pooling=avg)"
        );
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_way_out() {
        let said = |text: &str| Method::parse(text).unwrap_err().to_string();
        assert!(
            said("zigzack").contains("zigzag-lmbo"),
            "{}",
            said("zigzack")
        );
        assert!(said("uniform+snapkw").contains("snapkv"));
        assert!(said("uniform+snapkv+poled").contains("pooled"));
        assert!(said("uniform+snapkv+pooled+x").contains("nothing more"));
        assert!(said("uniform@profile").contains("leave @profile out"));
        assert!(said("zigzag(threshold").contains("key=value"));
        assert!(said("zigzag(treshold=1)").contains("threshold"));
        assert!(said("").contains("method"));
        assert!(Method::parse_list("zigzag,zigzag").is_err());
    }
}
