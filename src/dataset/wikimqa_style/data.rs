//! What the generator fills in: `datasets/wikimqa-style.json`, described in `datasets/README.md`.

use std::collections::BTreeMap;
use std::iter::successors;
use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Result};

const SOURCE: &str = include_str!("../../../datasets/wikimqa-style.json");

static DATA: LazyLock<serde_json::Result<Data>> = LazyLock::new(|| serde_json::from_str(SOURCE));

/// Kinds of things, in the order of the file; some are like another, or stand for one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Person,
    Maker,
    Director,
    Author,
    Singer,
    Relation,
    Double,
    Stranger,
    Work,
    Made,
    Film,
    Book,
    Song,
    Firm,
    Studio,
    Publisher,
    Label,
    School,
    Town,
    River,
    Tributary,
    Stream,
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Data {
    /// A kind of thing, its relation to a second thing, and the fact of that one.
    #[serde(borrow)]
    pub(super) compositional: Vec<(Kind, &'static str, &'static str)>,
    pub(super) comparison: Vec<Comparison>,
    pub(super) bridge_comparison: Vec<Comparison>,
    pub(super) inference: Vec<Kinship>,
    /// In the order of [`Kind`].
    kinds: [Recipe; 22],
    /// What is drawn anew for each sentence.
    pub(super) rolls: BTreeMap<&'static str, Draw>,
    /// Kinds that have nothing to do with the question.
    pub(super) strangers: Vec<Kind>,
    /// Names of months with their days.
    pub(super) months: [(&'static str, i32); 12],
    pub(super) sounds: Vec<Sound>,
    pub(super) country_ends: Vec<&'static str>,
    pub(super) real_names: Vec<&'static str>,
}

impl Data {
    pub(super) fn load() -> Result<&'static Self> {
        let problem = |e| Error::format(Path::new("datasets/wikimqa-style.json"), format!("{e}"));
        DATA.as_ref().map_err(problem)
    }

    /// How things of a kind are made; for one that is like another, what it does not share with it.
    pub(super) fn recipe(&self, kind: Kind) -> &Recipe {
        &self.kinds[kind as usize]
    }

    /// The recipe of a kind, then those of the kinds it is like.
    pub(super) fn recipes(&self, kind: Kind) -> impl Iterator<Item = &Recipe> {
        let like = |recipe: &&'_ Recipe| Some(self.recipe(recipe.like?));
        successors(Some(self.recipe(kind)), like)
    }

    /// The recipe that says how things of a kind are written about.
    pub(super) fn prose(&self, kind: Kind) -> &Recipe {
        let own = self.recipe(kind);
        own.like.map_or(own, |base| self.prose(base))
    }
}

/// A question that compares two things by one fact.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Comparison {
    /// The things' kind is one of these; any kind of work without them.
    #[serde(default)]
    pub(super) of: Vec<Kind>,
    pub(super) what: &'static str,
    /// A nearer tie would be a question about arithmetic, not about the passages.
    #[serde(default)]
    pub(super) apart: u32,
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

/// Syllables of one country's names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sound {
    #[serde(borrow)]
    pub(super) starts: Vec<&'static str>,
    pub(super) vowels: Vec<&'static str>,
    pub(super) links: Vec<&'static str>,
    /// The last syllables of each sort of name.
    pub(super) ends: BTreeMap<&'static str, Vec<&'static str>>,
}

/// How things of one kind are made, written about and asked for; `#` stands for the name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Recipe {
    pub(super) noun: &'static str,
    /// The kind with whose facts and text this one goes on.
    like: Option<Kind>,
    /// The kinds for which this one stands.
    pub(super) one_of: Vec<Kind>,
    /// The title, with the invented word for `#`; and the title in running text.
    pub(super) title: &'static str,
    pub(super) called: String,
    /// The subject in further sentences.
    pub(super) short: Vec<&'static str>,
    /// Who makes such a work.
    pub(super) by: Option<Kind>,
    pub(super) facts: Vec<Fill>,
    /// Facts that follow those of the kind it is like.
    pub(super) then: Vec<Fill>,
    /// How a thing is made that is easily confused with one of these.
    pub(super) twin: Option<Making>,
    pub(super) stranger: Option<Stranger>,
    /// Relations to things that the passage may speak of.
    pub(super) near: Vec<&'static str>,
    /// What a compositional question calls the thing at the end of a relation.
    pub(super) bridges: BTreeMap<&'static str, &'static str>,
    pub(super) questions: BTreeMap<&'static str, Vec<&'static str>>,
    /// Rolls for each sentence, and for a whole passage.
    pub(super) rolls: Vec<&'static str>,
    pub(super) once: Vec<&'static str>,
    pub(super) plan: Vec<Step>,
    text: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Recipe {
    /// The patterns called `name`, or rather those for a `special` case where there are any.
    pub(super) fn text(&self, name: &str, special: &str) -> &[&'static str] {
        let special = format!("{name} {special}");
        let found = self.text.get(special.as_str()).or(self.text.get(name));
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

/// How a thing gets one fact, if it has not got it yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fill {
    pub(super) fact: &'static str,
    pub(super) draw: Draw,
    /// Only for things with this fact, and without that.
    #[serde(rename = "if")]
    pub(super) has: Option<&'static str>,
    pub(super) unless: Option<&'static str>,
    /// Per cent; certain without it.
    pub(super) chance: Option<usize>,
}

/// How the value of a fact is drawn; other facts it needs are named, `maker.died` being the maker's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Draw {
    Country,
    /// A town of the country, new ones becoming rarer the more it has.
    Town,
    /// A town of the country other than the thing itself.
    OtherTown,
    #[serde(borrow)]
    Word(Vec<&'static str>),
    /// One of the words around the invented one with which the title is still free.
    Title(Vec<&'static str>),
    /// A new name with the ends called so.
    Invent(&'static str),
    Copy(&'static str),
    /// A copy for the invented word, if the title with it is still free.
    Free(&'static str),
    /// The twin of a thing, where that was made.
    Twin(&'static str),
    /// The word that belongs to a fact's word.
    By(&'static str, BTreeMap<&'static str, &'static str>),
    Number(Number),
    /// The first word whose bound lies above a fact's number.
    Grade(&'static str, Vec<(i32, &'static str)>),
    /// A day of the year that a fact gives, if it is not in the future.
    DayIn(&'static str),
    /// Whole years from one day to another.
    Years(&'static str, &'static str),
    OneOf(Vec<Draw>),
    New(Making),
    /// An older thing of the kind from the country, so many times in a hundred; otherwise a new one.
    Known(usize, Making),
    /// Relatives, with all that is set for both sides.
    Kin(&'static str),
}

/// A number from a range, which may begin at a fact's number or count back from it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Number {
    pub(super) between: (i32, i32),
    pub(super) after: Option<&'static str>,
    pub(super) before: Option<&'static str>,
    /// The range ends so far from a fact's number, and at most here.
    pub(super) until: Option<(&'static str, i32)>,
    pub(super) most: Option<i32>,
    /// What is drawn outside is moved to the nearer bound.
    pub(super) within: Option<(i32, i32)>,
    pub(super) times: Option<i32>,
    pub(super) unit: Option<&'static str>,
}

/// A new thing from the same country, with facts drawn from the one for which it is made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'static"))]
pub(super) struct Making {
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) with: Vec<Fill>,
}

/// What is made to have nothing to do with the question, but to be like a thing of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stranger {
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) with: Vec<Fill>,
    /// Whether it is from the country drawn for it, and does not draw its own.
    #[serde(default)]
    pub(super) here: bool,
    /// One of these relations leads to what the context speaks of as well.
    #[serde(borrow, default)]
    pub(super) beside: Vec<&'static str>,
    #[serde(default)]
    pub(super) beside_first: bool,
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

    use super::super::passage::{Draft, MENTIONS, Orders};
    use super::super::world::{Fact, Facts, World};
    use super::*;
    use crate::dataset::dice::Dice;
    use crate::dataset::text::slots;

    /// A world with everything that can be related to something.
    fn world(data: &'static Data, dice: Dice) -> World {
        let mut world = World::new(data, dice);
        world.make(Kind::Person, Facts::new());
        world.make(Kind::Tributary, Facts::new());
        for kind in [Kind::Film, Kind::Book, Kind::Song] {
            let work = world.make(kind, Facts::new());
            let person = world.link(work, "maker").unwrap();
            world.equip(person, "sibling");
        }
        world
    }

    #[test]
    fn the_file_is_read_and_every_slot_is_known() {
        let data = Data::load().unwrap();
        let world = world(data, Dice::new(1, 0));
        let mut known: HashSet<&str> = MENTIONS.iter().copied().collect();
        known.extend(data.rolls.keys());
        known.extend(["nat", "sibling", "sibling_word", "offspring", "made"]);
        let facts = world.things.iter().flat_map(|thing| thing.facts.keys());
        known.extend(facts);
        for recipe in &data.kinds {
            let of = |kind: Kind| &data.recipe(kind).noun;
            let kind: Kind = serde_json::from_value(recipe.noun.into()).unwrap();
            assert_eq!(of(kind), &recipe.noun);
            let mut rolls = recipe.rolls.iter().chain(&recipe.once);
            assert!(rolls.all(|name| data.rolls.contains_key(name)));
            for step in &recipe.plan {
                let made = ["film", "book", "song", "firm"];
                let found = made
                    .iter()
                    .all(|noun| !recipe.text(step.text, noun).is_empty());
                assert!(found, "{} of a {}", step.text, recipe.noun);
            }
            for pattern in recipe.text.values().flatten() {
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
        let mut unused: HashSet<&str> = data
            .kinds
            .iter()
            .flat_map(|recipe| recipe.text.values().flatten().copied())
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
