//! What the generator fills in: `datasets/wikimqa-style.json`, described in `datasets/README.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Result};

const SOURCE: &str = include_str!("../../../datasets/wikimqa-style.json");

static DATA: LazyLock<serde_json::Result<Data>> = LazyLock::new(|| serde_json::from_str(SOURCE));

/// Kinds of things that can have a passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Person,
    Film,
    Book,
    Song,
    Firm,
    School,
    Town,
    River,
}

impl Kind {
    /// Kinds that have a maker and a producer.
    pub(super) const WORKS: [Self; 3] = [Self::Film, Self::Book, Self::Song];
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Data {
    /// From which thing's relation to which relation of the second thing.
    #[serde(borrow)]
    pub(super) compositional: Vec<[&'static str; 2]>,
    pub(super) comparison: Vec<Comparison>,
    pub(super) bridge_comparison: Vec<Comparison>,
    pub(super) inference: Vec<Kinship>,
    /// In the order of [`Kind`].
    kinds: [Prose; 8],
    pub(super) rolls: BTreeMap<&'static str, Roll>,
    /// Names of months with their days.
    pub(super) months: [(&'static str, i32); 12],
    pub(super) trades: Vec<&'static str>,
    pub(super) sounds: Vec<Sound>,
    pub(super) country_ends: Vec<&'static str>,
    pub(super) real_names: Vec<&'static str>,
}

impl Data {
    pub(super) fn load() -> Result<&'static Self> {
        let problem = |e| Error::format(Path::new("datasets/wikimqa-style.json"), format!("{e}"));
        DATA.as_ref().map_err(problem)
    }

    pub(super) fn of(&self, kind: Kind) -> &Prose {
        &self.kinds[kind as usize]
    }
}

/// A question that compares two things by one fact.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Comparison {
    /// The things' kind; any kind of work without it.
    pub(super) of: Option<Kind>,
    pub(super) what: &'static str,
    #[serde(borrow)]
    pub(super) ask: Vec<(Wins, &'static str)>,
}

/// What answers a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wins {
    Least,
    Most,
    /// Yes if both are the same, otherwise no.
    Same,
}

/// A kinship's word, and the two steps that lead to it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Kinship(#[serde(borrow)] pub(super) [&'static str; 3]);

/// A slot that is filled anew for each sentence.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Roll {
    /// Another town of the country.
    Town,
    #[serde(borrow)]
    Word(Vec<&'static str>),
    Number(i32, i32),
    /// A year so many to so many years after the thing's first, up to its end or a given year.
    Age(i32, i32, i32),
}

/// Syllables of one country's names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sound {
    #[serde(borrow)]
    pub(super) starts: Vec<&'static str>,
    pub(super) vowels: Vec<&'static str>,
    pub(super) links: Vec<&'static str>,
    pub(super) men: Vec<&'static str>,
    pub(super) women: Vec<&'static str>,
    pub(super) families: Vec<&'static str>,
    pub(super) towns: Vec<&'static str>,
    pub(super) rivers: Vec<&'static str>,
}

/// How things of one kind are named, made, written about and asked for; `#` stands for the name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Prose {
    pub(super) noun: &'static str,
    /// The title in running text.
    pub(super) called: String,
    /// The subject in further sentences.
    pub(super) short: Vec<&'static str>,
    /// What the maker is called, and the maker's trade.
    pub(super) maker: &'static str,
    pub(super) trade: &'static str,
    pub(super) titles: Vec<&'static str>,
    pub(super) genres: Vec<&'static str>,
    /// The name and business of firms that produce such works.
    pub(super) producer: (&'static str, &'static str),
    /// Names and businesses of other houses.
    pub(super) houses: Vec<(&'static str, &'static str)>,
    /// Relations to things that the passage may speak of.
    pub(super) near: Vec<&'static str>,
    /// What a compositional question calls the thing at the end of a relation.
    pub(super) bridges: BTreeMap<&'static str, &'static str>,
    pub(super) questions: BTreeMap<&'static str, Vec<&'static str>>,
    pub(super) rolls: Vec<&'static str>,
    pub(super) plan: Vec<Step>,
    text: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Prose {
    /// The patterns called `name`, or rather those for a `special` case where there are any.
    pub(super) fn text(&self, name: &str, special: &str) -> &[&'static str] {
        let special = format!("{name} {special}");
        let found = self.text.get(special.as_str()).or(self.text.get(name));
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

/// One step in writing a passage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) how: How,
    pub(super) text: &'static str,
    /// Sentences stand in a passage in this order.
    #[serde(default)]
    pub(super) rank: u8,
    #[serde(default)]
    pub(super) count: usize,
    /// The fact whose value chooses among special patterns.
    pub(super) by: Option<&'static str>,
    /// Only if the step before was left out.
    #[serde(default, rename = "else")]
    pub(super) otherwise: bool,
    /// Only for things with this fact.
    #[serde(rename = "if")]
    pub(super) has: Option<&'static str>,
    pub(super) if_said: Option<&'static str>,
    /// Per cent; certain where the fact `or_needed` must be said.
    pub(super) chance: Option<usize>,
    pub(super) or_needed: Option<&'static str>,
}

/// What a step writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum How {
    /// The first sentence, whose patterns say different facts.
    Lead,
    /// One sentence, all of whose patterns say the same facts.
    Say,
    /// Such a sentence about each thing that stands in the relation named by the text.
    Each,
    /// Sentences that say nothing anybody will ask for.
    Chat,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::making::Wanted;
    use super::super::passage::{Draft, MENTIONS, Orders};
    use super::super::world::{Fact, World};
    use super::*;
    use crate::dataset::dice::Dice;
    use crate::dataset::text::slots;

    const KINDS: [Kind; 8] = [
        Kind::Person,
        Kind::Film,
        Kind::Book,
        Kind::Song,
        Kind::Firm,
        Kind::School,
        Kind::Town,
        Kind::River,
    ];

    /// A world with everything that can be related to something.
    fn world(data: &'static Data, dice: Dice) -> World {
        let mut world = World::new(data, dice);
        world.person(Wanted::of(0));
        world.river(0, true);
        for kind in Kind::WORKS {
            let person = world.maker(kind, None);
            world.equip(person, "sibling");
            world.work(kind, person, None);
        }
        world
    }

    #[test]
    fn the_file_is_read_and_every_slot_is_known() {
        let data = Data::load().unwrap();
        let world = world(data, Dice::new(1, 0));
        let mut known: HashSet<&str> = MENTIONS.iter().copied().collect();
        known.extend(data.rolls.keys());
        known.extend([
            "country",
            "nat",
            "sibling",
            "sibling_word",
            "offspring",
            "made",
        ]);
        let facts = world.things.iter().flat_map(|thing| thing.facts.keys());
        known.extend(facts);
        for kind in KINDS {
            let prose = data.of(kind);
            assert_eq!(format!("{kind:?}").to_lowercase(), prose.noun);
            assert!(prose.rolls.iter().all(|name| data.rolls.contains_key(name)));
            for step in &prose.plan {
                let made = ["film", "book", "song", "firm"];
                let found = made
                    .iter()
                    .all(|noun| !prose.text(step.text, noun).is_empty());
                assert!(found, "{} of a {}", step.text, prose.noun);
            }
            for pattern in prose.text.values().flatten() {
                for slot in slots(pattern).flat_map(|slot| slot.split('.')) {
                    assert!(known.contains(slot), "{slot} in {pattern}");
                }
                let count = |mark: char| pattern.matches(mark).count();
                assert_eq!(count('{'), count('}'), "{pattern}");
                assert_eq!(count('['), count(']'), "{pattern}");
            }
        }
    }

    #[test]
    fn every_pattern_is_written_without_an_open_slot() {
        let data = Data::load().unwrap();
        let mut unused: HashSet<&str> = KINDS
            .iter()
            .flat_map(|kind| data.of(*kind).text.values().flatten().copied())
            .collect();
        for seed in 0..400 {
            let mut world = world(data, Dice::new(seed, 0));
            // Where a passage may not say the day of death, it says the place alone.
            let days = (0..world.things.len()).map(|id| Fact::new(id, "died"));
            let orders = Orders {
                need: &[],
                gold: &days.filter(|_| seed % 2 == 1).collect(),
                named: false,
            };
            for thing in 0..world.things.len() {
                let draft = Draft::new(&mut world, thing, &orders).unwrap();
                for sentence in draft.sentences {
                    assert!(!sentence.text.contains(['{', '}']), "{}", sentence.text);
                }
            }
            unused.retain(|pattern| !world.deck.has_spent(pattern));
        }
        assert!(unused.is_empty(), "{unused:?}");
    }
}
