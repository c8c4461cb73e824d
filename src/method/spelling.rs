//! How methods are written: a name, or axes with parameters.

use serde_json::{Map, Value};

use super::definition::{Allocation, Cut, Measured, Method, Ranking, RuledAllocation};
use super::named::METHODS;
use super::residency::RESIDENCIES;
use crate::budget::{Granularity, allocator, allocators};
use crate::error::{Error, Result};
use crate::registry;
use crate::select::{Imported, Imports, SCORERS, ScoreFiles};

/// Files of another program under the name that methods give them.
#[derive(Clone, Debug)]
pub struct NamedFiles {
    /// What stands for them in place of a scorer.
    pub name: String,
    /// The files.
    pub files: ScoreFiles,
}

impl NamedFiles {
    /// Files under a name that nothing else has.
    ///
    /// Errors: [`Error::Invalid`] for a name that a method could not be spelled with, or that is taken.
    pub fn new(name: &str, files: ScoreFiles) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            let bound = "letters, digits, -, _ and . are expected";
            return Err(Error::invalid(
                "name of the files",
                format!("'{name}'"),
                bound,
            ));
        }
        let taken = METHODS.iter().any(|m| m.name == name)
            || SCORERS.iter().any(|s| s.name == name)
            || allocators().any(|a| a.name == name)
            || is_residency(name);
        if taken {
            let bound = "a method, scorer, strategy or residency has it: take another";
            return Err(Error::invalid("name of the files", name, bound));
        }
        let name = name.to_owned();
        Ok(Self { name, files })
    }
}

impl Method {
    /// Reads a name of [`METHODS`], or `STRATEGY[+SCORER[+SPLIT]]`, each with `[+RESIDENCY][+cache(TYPE)]` behind it.
    ///
    /// STRATEGY is a name with parameters in parentheses, `:head` for budgets by KV head and `@profile` to
    /// allocate from a profile instead of the prompt itself: `zigzag(floor=40):head@profile+snapkv(kernel=5)`.
    /// RESIDENCY is a name of [`RESIDENCIES`]: `zigzag+evict-h2o(budget=128)`; TYPE is what keys and values are held in
    /// after the cut: `snapkv+cache(k=bf16,v=f16)`.
    /// Errors: [`Error::UnknownName`], [`Error::Invalid`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, &[])
    }

    /// The same where `own` files may stand for a scorer; alone, a name of theirs is that scorer under equal budgets.
    ///
    /// Errors: as [`Method::parse`]; [`Error::Invalid`] for a strategy or split of files that say what is kept.
    pub fn parse_with(text: &str, own: &[NamedFiles]) -> Result<Self> {
        let text = text.trim();
        let mut axes: Vec<&str> = split_outside_parentheses(text, '+');
        axes.iter_mut().for_each(|axis| *axis = axis.trim());
        // A name may stand for how the cache lives, too.
        if let Some(named) = METHODS.iter().find(|m| m.name == axes[0])
            && named.spelled.split('+').any(is_residency)
        {
            axes.splice(..1, named.spelled.split('+'));
        }
        if let Some(living) = axes.iter().position(|axis| is_residency(axis))
            && (living == 0
                || axes[living + 1..]
                    .iter()
                    .any(|axis| !axis.starts_with("cache(")))
        {
            let bound = if living == 0 {
                format!("residencies stand last, behind what they hold: full+{text}")
            } else {
                "residencies stand last: STRATEGY+SCORER+SPLIT+RESIDENCY+cache(TYPE)".to_owned()
            };
            return Err(Error::invalid("method", text, bound));
        }
        let mut method = Self::of_cut(text, None);
        while axes.len() > 1 && method.read_living_axis(axes[axes.len() - 1])? {
            axes.pop();
        }
        let cut = axes.join("+");
        let spelled = METHODS.iter().find(|m| m.name == cut);
        let of_files = own.iter().any(|named| named.name == cut);
        let of_files = of_files.then(|| format!("uniform+{cut}"));
        let spelled = spelled.map_or(of_files.as_deref().unwrap_or(&cut), |named| named.spelled);
        if !spelled.is_empty() || cut.is_empty() {
            method.cut = Some(Cut::parse(spelled, own)?);
        }
        let kept = method
            .files()
            .is_some_and(|files| files.imports() == Imports::Kept);
        if kept && of_files.is_none() {
            let bound =
                "its files say what is kept, which no strategy or split can change: leave them out";
            return Err(Error::invalid("method", text, bound));
        }
        Ok(method)
    }

    /// Reads an axis that says how a cache lives; `false` where it is another.
    fn read_living_axis(&mut self, text: &str) -> Result<bool> {
        if let Some(inside) = text
            .strip_prefix("cache(")
            .and_then(|t| t.strip_suffix(')'))
        {
            if self.representation.is_some() {
                return Err(Error::invalid(
                    "method",
                    text,
                    "the cache's type is named twice",
                ));
            }
            self.representation = Some(inside.parse()?);
            return Ok(true);
        }
        if !is_residency(text) {
            return Ok(false);
        }
        let (name, parameters) = with_parameters(text)?;
        self.residency = registry::build("residency", RESIDENCIES, name, parameters)?;
        self.residency_name = name.to_owned();
        Ok(true)
    }

    /// Reads a list separated by commas; commas inside parentheses separate parameters.
    ///
    /// Errors: those of [`Method::parse`]; [`Error::Invalid`] for a method that is named twice.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        Self::parse_list_with(text, &[])
    }

    /// The names of a list, parted at commas outside parentheses.
    pub fn split_list(text: &str) -> Vec<&str> {
        let names = split_outside_parentheses(text, ',').into_iter();
        names.map(str::trim).collect()
    }

    /// The same where `own` files may stand for a scorer.
    ///
    /// Errors: as [`Method::parse_list`] and [`Method::parse_with`].
    pub fn parse_list_with(text: &str, own: &[NamedFiles]) -> Result<Vec<Self>> {
        let mut methods: Vec<Self> = Vec::new();
        for name in split_outside_parentheses(text, ',') {
            let method = Self::parse_with(name, own)?;
            if methods.iter().any(|m| m.name == method.name) {
                return Err(Error::invalid("method", method.name, "it is named twice"));
            }
            methods.push(method);
        }
        Ok(methods)
    }
}

impl Cut {
    /// Reads `STRATEGY[+SCORER[+SPLIT]]`.
    fn parse(text: &str, own: &[NamedFiles]) -> Result<Self> {
        let mut axes = split_outside_parentheses(text, '+').into_iter();
        let strategy = axes.next().unwrap_or_default();
        let scorer = axes.next().unwrap_or("snapkv");
        let split = axes.next().unwrap_or("per-head");
        if let Some(more) = axes.next() {
            let bound = "a method is STRATEGY+SCORER+SPLIT+RESIDENCY+cache(TYPE), nothing more";
            return Err(Error::invalid("method", format!("{text}: {more}"), bound));
        }
        let ranking = Ranking::parse(scorer, split, own)?;
        Ok(Self {
            allocation: Allocation::Rule(RuledAllocation::parse(strategy)?),
            ranking,
        })
    }
}

impl RuledAllocation {
    fn parse(text: &str) -> Result<Self> {
        let (text, measured) = match text.strip_suffix("@profile") {
            Some(rest) => (rest, Measured::Profile(None)),
            None => (text, Measured::Online),
        };
        let (text, granularity) = match text.strip_suffix(":head") {
            Some(rest) => (rest, Granularity::Head),
            None => (text, Granularity::Layer),
        };
        let (name, parameters) = with_parameters(text)?;
        if !allocators().any(|a| a.name == name) {
            let names = METHODS.iter().map(|m| m.name);
            let strategies = allocators().map(|a| a.name);
            let strategies = strategies.filter(|s| !METHODS.iter().any(|m| m.name == *s));
            return Err(Error::unknown("method", name, names.chain(strategies)));
        }
        let allocator = allocator(name, parameters)?;
        let needs = allocator.needs(Granularity::Layer).unwrap_or_default();
        let reads_nothing = needs.is_empty();
        if measured != Measured::Online && !needs.is_in_profiles() {
            let bound = "the strategy reads what only the prompt itself shows: leave @profile out";
            return Err(Error::invalid("method", format!("{name}@profile"), bound));
        }
        if measured != Measured::Online && reads_nothing {
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
    fn parse(scorer: &str, split: &str, own: &[NamedFiles]) -> Result<Self> {
        if let Some(named) = own.iter().find(|named| named.name == scorer) {
            return Ok(Self {
                name: named.name.clone(),
                scorer: Box::new(Imported(named.files.clone())),
                split: split.parse()?,
            });
        }
        let (name, parameters) = with_parameters(scorer)?;
        Ok(Self {
            name: name.to_owned(),
            scorer: registry::build("scorer", SCORERS, name, parameters)?,
            split: split.parse()?,
        })
    }
}

/// Whether an axis names a residency, with parameters or without.
fn is_residency(axis: &str) -> bool {
    let name = axis.split('(').next().unwrap_or(axis);
    RESIDENCIES.iter().any(|r| r.name == name)
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
            let keeps_all = named.spelled.is_empty() || named.spelled.starts_with("full+");
            assert_eq!(method.cut.is_none(), keeps_all, "{}", named.name);
            assert_eq!(method.is_reference(), named.spelled.is_empty());
            assert_eq!(method.spends_budget(), !named.spelled.is_empty());
            if let Some(cut) = &method.cut {
                assert_eq!(method.described()["strategy"], cut.allocation.strategy());
            }
        }
    }

    #[test]
    fn axes_are_spelled_out_with_their_parameters() {
        let text = "zigzag(threshold=0.95):head@profile+snapkv(kernel=5,pooling=avg)+pooled:0.3";
        let method = Method::parse(text).unwrap();
        assert!(method.needs_given_profile() && method.own_needs().is_empty());
        let described = method.described();
        assert_eq!(described["parameters"]["threshold"], 0.95);
        assert_eq!(described["granularity"], "head");
        assert_eq!(described["scorer_parameters"]["kernel"], 5);
        assert_eq!(described["split"], "pooled:0.3");
        assert!(described.get("residency").is_none() && described.get("cache").is_none());
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
    fn how_a_cache_lives_stands_behind_any_method() {
        for (text, cut, residency, cache) in [
            (
                "snapkv+evict-h2o(budget=64,every=4)",
                true,
                "evict-h2o",
                None,
            ),
            ("zigzag+snapkv+pooled+evict-tova", true, "evict-tova", None),
            (
                "full+evict-streaming(budget=12%)",
                false,
                "evict-streaming",
                None,
            ),
            ("full+cache(bf16)", false, "keep", Some("bf16")),
            (
                "ada-kv+evict-h2o+cache(k=bf16,v=f16)",
                true,
                "evict-h2o",
                Some("k=bf16,v=f16"),
            ),
            ("zigzag+keep", true, "keep", None),
            ("clusterkv", false, "clusterkv", None),
            ("clusterkv+cache(bf16)", false, "clusterkv", Some("bf16")),
            ("full+clusterkv(budget=12%)", false, "clusterkv", None),
            ("snapkv+clusterkv(budget=64)", true, "clusterkv", None),
        ] {
            let method = Method::parse(text).unwrap();
            assert_eq!(
                (method.cut.is_some(), &*method.residency_name),
                (cut, residency),
                "{text}"
            );
            assert_eq!(
                method.representation.map(|r| r.to_string()).as_deref(),
                cache,
                "{text}"
            );
            assert!(!method.is_reference());
        }
        let method = Method::parse("snapkv+evict-h2o(budget=64,every=4)").unwrap();
        let described = method.described();
        assert_eq!(described["residency_parameters"]["budget"], 64.0);
        assert_eq!(described["residency_parameters"]["every"], 4);
        assert_eq!(described["strategy"], "uniform");
        let own = Method::parse("full+clusterkv(budget=64)").unwrap();
        assert_eq!(own.described()["residency_parameters"]["budget"], 64.0);
        assert!(!own.spends_budget() && Method::parse("clusterkv").unwrap().spends_budget());
        let share = Method::parse("full+clusterkv(budget=12%,sinks=4)").unwrap();
        let described = share.described();
        assert_eq!(described["residency_parameters"]["budget"], "12%");
        assert_eq!(described["residency_parameters"]["sinks"], 4);
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
        assert!(said("lava@profile").contains("leave @profile out"));
        assert!(said("zigzag(threshold").contains("key=value"));
        assert!(said("zigzag(treshold=1)").contains("threshold"));
        assert!(said("").contains("method"));
        assert!(said("snapkv+evict-h2o(bugdet=3)").contains("budget"));
        assert!(said("snapkv+evict-h2o+evict-tova").contains("stand last"));
        assert!(said("evict-h2o(budget=64)").contains("full+evict-h2o"));
        assert!(said("snapkv+evict-h2o+per-head").contains("stand last"));
        assert!(said("clusterkv+evict-h2o").contains("stand last"));
        assert!(said("clusterkv+snapkv").contains("stand last"));
        assert!(said("clusterkv(budget=64)").contains("full+clusterkv(budget=64)"));
        assert!(said("full+clusterkv(bugdet=64)").contains("budget"));
        assert!(said("full+clusterkv(budget=-3)").contains("-3"));
        assert!(said("full+clusterkv(budget=many)").contains("12%"));
        assert!(said("snapkv+cache(q3)").contains("bf16"));
        assert!(said("snapkv+cache(f16)+cache(bf16)").contains("twice"));
        assert!(Method::parse_list("zigzag,zigzag").is_err());
    }
}
