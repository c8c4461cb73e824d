//! Losses of independent units at every budget of a method: what a certificate is calibrated on.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::loss::Loss;
use super::order::{BudgetRows, smallest_first};
use crate::error::{Error, Result};
use crate::eval::clusters::CLUSTER;
use crate::eval::comparison::FULL;
use crate::eval::shuffle::shuffle;
use crate::table::Table;

/// One unit: a prompt, or the prompts of one cluster, such as a needle at many places.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Prompts in it.
    pub prompts: usize,
    /// Tokens of the shortest and of the longest of them.
    pub tokens: [usize; 2],
    /// Mean loss of its prompts at every budget.
    pub losses: Vec<f64>,
    /// Runs that ended in an error at every budget; each counts as the largest loss.
    pub failed: Vec<usize>,
}

/// What a method loses on independent units, at budgets of which each is at least the one before.
///
/// Paper: none: house definition. Units: those of the loss; clipped prompt by prompt, before means over a unit are taken.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitLosses {
    /// As they were asked for, smallest first.
    pub budgets: Vec<String>,
    /// The units, in the order of their first prompts.
    pub units: Vec<Unit>,
    /// Prompts that are left out, because the loss is defined at no budget: without an answer, for example.
    pub undefined: usize,
    /// Mean bytes that were held at every budget, over all prompts that were read.
    pub kv_bytes: Vec<f64>,
}

impl UnitLosses {
    /// Reads what `method` loses from a results table, at its budgets or at those of them that `only` names.
    ///
    /// Losses above `clip` count as `clip`, and so does a run that failed.
    ///
    /// Errors: [`Error::UnknownName`] for a method, budget or column that is not there; [`Error::Invalid`] for the full
    /// cache itself, a prompt without a row at some budget, a loss that is defined at some budgets of a prompt only, and
    /// budgets without an order.
    pub fn read(
        table: &Table,
        method: &str,
        loss: &Loss,
        clip: f64,
        only: &[String],
    ) -> Result<Self> {
        let rows = MethodRows::read(table, method, loss, only)?;
        let columns = loss.columns(table)?;
        let errors = table.texts("error")?;
        let clusters = match table.column(CLUSTER) {
            Some(_) => Some(table.texts(CLUSTER)?),
            None => None,
        };
        let held = table.numbers("kv_bytes")?;
        let tokens = table.counts("tokens")?;
        let mut read = Self {
            budgets: rows.budgets.iter().map(|b| b.name.to_owned()).collect(),
            units: Vec::new(),
            undefined: 0,
            kv_bytes: rows.budgets.iter().map(|b| mean_of(b, &held)).collect(),
        };
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for &prompt in &rows.prompts {
            let own: Vec<usize> = rows.budgets.iter().map(|b| b.rows[&prompt]).collect();
            let failed: Vec<bool> = own.iter().map(|&row| !errors[row].is_empty()).collect();
            let full = rows.full.get(&prompt).copied();
            let lost = |(&row, &failed): (&usize, &bool)| {
                let lost = if failed {
                    f64::INFINITY
                } else {
                    columns.of(row, full)
                };
                if lost > clip { clip } else { lost }
            };
            let losses: Vec<f64> = own.iter().zip(&failed).map(lost).collect();
            let defined = losses.iter().filter(|loss| !loss.is_nan()).count();
            let failures = failed.iter().filter(|failed| **failed).count();
            if defined < losses.len() && defined > failures {
                let bound = format!(
                    "prompt {prompt} has one at some of {} budgets only: evaluate it again",
                    losses.len()
                );
                return Err(Error::invalid("loss", loss.name, bound));
            }
            if defined < losses.len() {
                read.undefined += 1;
                continue;
            }
            let name = clusters.map_or(format!("prompt {prompt}"), |names| names[own[0]].clone());
            let place = *places.entry(name).or_insert(read.units.len());
            if place == read.units.len() {
                read.units.push(Unit::of(losses.len()));
            }
            read.units[place].add(tokens[own[0]] as usize, &losses, &failed);
        }
        read.units.iter_mut().for_each(Unit::finish);
        if read.units.is_empty() {
            let bound = "no prompt has this loss: take another, or a data set with answers";
            return Err(Error::invalid("loss", loss.name, bound));
        }
        Ok(read)
    }

    /// Prompts of all units.
    pub fn prompts(&self) -> usize {
        self.units.iter().map(|unit| unit.prompts).sum()
    }

    /// Tokens of the shortest and of the longest prompt.
    pub fn tokens(&self) -> [usize; 2] {
        let of = |end: usize| self.units.iter().map(move |unit| unit.tokens[end]);
        [of(0).min().unwrap_or(0), of(1).max().unwrap_or(0)]
    }

    /// Runs that ended in an error at a budget.
    pub fn failed(&self, budget: usize) -> usize {
        self.units.iter().map(|unit| unit.failed[budget]).sum()
    }

    /// Losses of all units at a budget.
    pub fn at(&self, budget: usize) -> Vec<f64> {
        self.units.iter().map(|unit| unit.losses[budget]).collect()
    }

    /// Holds a share of the units out, drawn by `seed`: what is left to calibrate on, and what is held out.
    ///
    /// Errors: [`Error::Invalid`] where nothing would be on one side.
    pub fn split(&self, share: f64, seed: u64) -> Result<(Self, Self)> {
        let n = self.units.len();
        let out = (share * n as f64).round() as usize;
        if !(share > 0.0 && share < 1.0) || out == 0 || out == n {
            let bound = format!("it leaves {out} of {n} units on one side: take another share");
            return Err(Error::invalid("share held out", share, bound));
        }
        let mut order: Vec<usize> = (0..n).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        shuffle(&mut order, &mut rng);
        let held_out: BTreeSet<usize> = order[..out].iter().copied().collect();
        let part = |wanted: bool| {
            let units = self.units.iter().enumerate();
            let units = units.filter(|(i, _)| held_out.contains(i) == wanted);
            Self {
                units: units.map(|(_, unit)| unit.clone()).collect(),
                ..self.clone()
            }
        };
        Ok((part(false), part(true)))
    }
}

impl Unit {
    fn of(budgets: usize) -> Self {
        Self {
            prompts: 0,
            tokens: [usize::MAX, 0],
            losses: vec![0.0; budgets],
            failed: vec![0; budgets],
        }
    }

    fn add(&mut self, tokens: usize, losses: &[f64], failed: &[bool]) {
        self.prompts += 1;
        self.tokens = [self.tokens[0].min(tokens), self.tokens[1].max(tokens)];
        for (sum, loss) in self.losses.iter_mut().zip(losses) {
            *sum += loss;
        }
        for (count, failed) in self.failed.iter_mut().zip(failed) {
            *count += usize::from(*failed);
        }
    }

    fn finish(&mut self) {
        let prompts = self.prompts as f64;
        self.losses.iter_mut().for_each(|sum| *sum /= prompts);
    }
}

/// Where a method's runs stand in a results table.
struct MethodRows<'t> {
    budgets: Vec<BudgetRows<'t>>,
    prompts: BTreeSet<u32>,
    /// The full cache's row of every prompt.
    full: BTreeMap<u32, usize>,
}

impl<'t> MethodRows<'t> {
    fn read(table: &'t Table, method: &str, loss: &Loss, only: &[String]) -> Result<Self> {
        if method == FULL {
            let bound = "it is what losses are taken against: name a method that cuts";
            return Err(Error::invalid("method", method, bound));
        }
        let prompts = table.counts("prompt")?;
        let (methods, names) = (table.texts("method")?, table.texts("budget")?);
        let mut budgets: Vec<BudgetRows<'t>> = Vec::new();
        let mut full = BTreeMap::new();
        for (row, &prompt) in prompts.iter().enumerate() {
            if methods[row] == FULL {
                full.insert(prompt, row);
            }
            if methods[row] != method {
                continue;
            }
            let name = names[row].as_str();
            let place = budgets.iter().position(|b| b.name == name);
            let place = place.unwrap_or_else(|| {
                let rows = BTreeMap::new();
                budgets.push(BudgetRows { name, rows });
                budgets.len() - 1
            });
            if budgets[place].rows.insert(prompt, row).is_some() {
                let what = format!("prompt of method {method} at budget {name}");
                let bound = "it occurs twice; every prompt counts once";
                return Err(Error::invalid(what, prompt, bound));
            }
        }
        if budgets.is_empty() {
            let known: BTreeSet<&str> = methods.iter().map(String::as_str).collect();
            return Err(Error::unknown(
                "method",
                method,
                known.into_iter().filter(|m| *m != FULL),
            ));
        }
        let known: Vec<&str> = budgets.iter().map(|b| b.name).collect();
        if let Some(other) = only.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::unknown("budget", other, known));
        }
        budgets.retain(|b| only.is_empty() || only.iter().any(|name| name == b.name));
        let prompts = budgets
            .iter()
            .flat_map(|b| b.rows.keys().copied())
            .collect();
        let read = Self {
            budgets: Vec::new(),
            prompts,
            full,
        };
        read.check(&budgets, loss)?;
        let budgets = smallest_first(table, budgets)?;
        Ok(Self { budgets, ..read })
    }

    /// Refuses prompts that were not tried at every budget, or that lack the full cache where the loss is taken against it.
    fn check(&self, budgets: &[BudgetRows<'_>], loss: &Loss) -> Result<()> {
        for budget in budgets {
            if let Some(prompt) = self.prompts.iter().find(|p| !budget.rows.contains_key(p)) {
                let bound = format!("it was not tried at budget {}, but at others", budget.name);
                return Err(Error::invalid("prompt", prompt, bound));
            }
        }
        let without = |p: &&u32| loss.reads_full() && !self.full.contains_key(p);
        match self.prompts.iter().find(without) {
            None => Ok(()),
            Some(prompt) => {
                let bound = format!(
                    "the loss {} is taken against the full cache, which was not tried on it: evaluate `full` among the \
                     methods, or take the loss kl",
                    loss.name
                );
                Err(Error::invalid("prompt", prompt, bound))
            }
        }
    }
}

/// Mean over the runs that have a value.
fn mean_of(budget: &BudgetRows<'_>, values: &[f64]) -> f64 {
    let finite = budget.rows.values().map(|&row| values[row]);
    let finite: Vec<f64> = finite.filter(|value| value.is_finite()).collect();
    finite.iter().sum::<f64>() / finite.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    /// A line of a results table: prompt, method, budget, kl, f1, error.
    type Line<'a> = (u32, &'a str, &'a str, f64, f64, &'a str);

    fn table(lines: &[Line<'_>], clusters: Option<&[&str]>) -> Table {
        let text = |of: fn(&Line<'_>) -> String| Column::Text(lines.iter().map(of).collect());
        let number = |of: fn(&Line<'_>) -> f64| Column::Number(lines.iter().map(of).collect());
        let mut table = Table::new();
        table.push("prompt", Column::Count(lines.iter().map(|l| l.0).collect()));
        table.push(
            "tokens",
            Column::Count(lines.iter().map(|l| 500 + l.0).collect()),
        );
        table.push("method", text(|l| l.1.to_owned()));
        table.push("budget", text(|l| l.2.to_owned()));
        table.push("kl", number(|l| l.3));
        table.push("f1", number(|l| l.4));
        table.push("full_bytes", number(|_| 5000.0));
        table.push(
            "kv_bytes",
            number(|l| if l.5.is_empty() { 100.0 } else { f64::NAN }),
        );
        table.push("error", text(|l| l.5.to_owned()));
        if let Some(names) = clusters {
            let of = |l: &Line<'_>| names[l.0 as usize].to_owned();
            table.push(CLUSTER, Column::Text(lines.iter().map(of).collect()));
        }
        table
    }

    fn lines() -> Vec<Line<'static>> {
        let nan = f64::NAN;
        vec![
            (0, "full", "full", 0.0, 1.0, ""),
            (0, "snapkv", "128", 0.25, 0.5, ""),
            (0, "snapkv", "64", 3.0, 0.0, ""),
            (1, "full", "full", 0.0, 0.5, ""),
            (1, "snapkv", "128", 0.5, 1.0, ""),
            (1, "snapkv", "64", nan, nan, "no room"),
            (2, "full", "full", 0.0, nan, ""),
            (2, "snapkv", "128", 0.75, nan, ""),
            (2, "snapkv", "64", 1.0, nan, ""),
        ]
    }

    fn read(table: &Table, loss: &str, clip: f64) -> Result<UnitLosses> {
        UnitLosses::read(table, "snapkv", Loss::find(loss).unwrap(), clip, &[])
    }

    #[test]
    fn losses_are_clipped_and_failures_are_the_largest() {
        let table = table(&lines(), None);
        let kl = read(&table, "kl", 2.0).unwrap();
        assert_eq!(kl.budgets, ["64", "128"]);
        assert_eq!(
            (kl.at(0), kl.at(1)),
            (vec![2.0, 2.0, 1.0], vec![0.25, 0.5, 0.75])
        );
        assert_eq!(
            (kl.prompts(), kl.undefined, kl.tokens()),
            (3, 0, [500, 502])
        );
        assert_eq!([0, 1].map(|b| kl.failed(b)), [1, 0]);
        assert_eq!(kl.kv_bytes, [100.0, 100.0]);
        // Prompt 2 has no answer; what prompt 1 gains is no loss.
        let f1 = read(&table, "f1", 1.0).unwrap();
        assert_eq!((f1.at(0), f1.at(1)), (vec![1.0, 1.0], vec![0.5, 0.0]));
        assert_eq!((f1.prompts(), f1.undefined), (2, 1));
        let only = ["128".to_owned()];
        let one = UnitLosses::read(&table, "snapkv", Loss::find("kl").unwrap(), 2.0, &only);
        assert_eq!(one.unwrap().budgets, only);
    }

    #[test]
    fn prompts_of_a_cluster_are_one_unit() {
        let table = table(&lines(), Some(&["a", "b", "a"]));
        let kl = read(&table, "kl", 2.0).unwrap();
        assert_eq!((kl.at(0), kl.at(1)), (vec![1.5, 2.0], vec![0.5, 0.5]));
        assert_eq!((kl.units[0].prompts, kl.prompts()), (2, 3));
    }

    #[test]
    fn what_cannot_be_calibrated_on_is_refused() {
        let said = |lines: &[Line<'_>], loss| read(&table(lines, None), loss, 2.0).unwrap_err();
        let twice = [lines(), lines()].concat();
        assert!(said(&twice, "kl").to_string().contains("occurs twice"));
        let gap = [&lines()[..5], &lines()[6..]].concat();
        assert!(
            said(&gap, "kl")
                .to_string()
                .contains("not tried at budget 64")
        );
        let no_full: Vec<_> = lines().into_iter().filter(|l| l.1 != "full").collect();
        assert!(said(&no_full, "f1").to_string().contains("evaluate `full`"));
        assert!(read(&table(&no_full, None), "kl", 2.0).is_ok());
        let mut half = lines();
        half[7].3 = f64::NAN;
        assert!(said(&half, "kl").to_string().contains("evaluate it again"));
        let table = table(&lines(), None);
        let of = |method, only: &[String]| {
            let kl = Loss::find("kl").unwrap();
            UnitLosses::read(&table, method, kl, 2.0, only)
                .unwrap_err()
                .to_string()
        };
        assert!(of("full", &[]).contains("losses are taken against"));
        assert!(of("h2o", &[]).contains("known: snapkv"));
        assert!(of("snapkv", &["32".to_owned()]).contains("known: 128, 64"));
    }

    #[test]
    fn a_split_is_by_units_and_repeats() {
        let lines: Vec<Line<'_>> = (0..20)
            .map(|p| (p, "snapkv", "64", f64::from(p) / 100.0, 0.0, ""))
            .collect();
        let kl = read(&table(&lines, None), "kl", 2.0).unwrap();
        let (rest, out) = kl.split(0.3, 5).unwrap();
        assert_eq!((rest.units.len(), out.units.len()), (14, 6));
        let mut all = [rest.at(0), out.at(0)].concat();
        all.sort_by(f64::total_cmp);
        assert_eq!(all, kl.at(0));
        assert_eq!(kl.split(0.3, 5).unwrap(), (rest, out.clone()));
        assert_ne!(kl.split(0.3, 6).unwrap().1, out);
        for share in [0.0, 0.01, 1.0, -0.5] {
            assert!(kl.split(share, 5).is_err(), "{share}");
        }
    }
}
