//! A passage in the making: its title and the sentences it could have.

use std::collections::HashSet;

use super::data::{How, Recipe, Step};
use super::world::{Fact, Id, World};
use crate::dataset::text::{fill, fill_slots, slots};

/// One sentence of a passage.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    pub(super) text: String,
    pub(super) facts: Vec<Fact>,
    rank: u8,
    /// What it adds to a context, once measured.
    pub(super) tokens: usize,
    /// Whether the sentence is in the passage.
    pub(super) chosen: bool,
}

/// A passage in the making.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) thing: Id,
    pub(super) title: String,
    pub(super) sentences: Vec<Sentence>,
    /// How readily the passage grows, for long and short ones.
    pub(super) appetite: usize,
}

/// What a passage must and must not say.
#[derive(Debug)]
pub(super) struct Orders<'a> {
    /// The facts that it must say.
    pub(super) need: &'a [Fact],
    /// The facts the question rests on; each is said once in the context, where it is needed.
    pub(super) gold: &'a HashSet<Fact>,
    /// Whether the sentences of needed facts call their subject by its full name.
    pub(super) named: bool,
}

impl Draft {
    /// All that could be said about `thing`, the lead and what is needed being chosen.
    ///
    /// `None` if a needed fact found no sentence.
    pub(super) fn new(world: &mut World, thing: Id, orders: &Orders<'_>) -> Option<Self> {
        let mut sentences = Writer::new(world, thing, orders).write();
        sentences.sort_by_key(|sentence| sentence.rank);
        for fact in orders.need {
            let says = |sentence: &&mut Sentence| sentence.facts.contains(fact);
            sentences.iter_mut().find(says)?.chosen = true;
        }
        sentences.first_mut()?.chosen = true;
        Some(Self {
            thing,
            title: world.title(thing),
            sentences,
            appetite: world.dice.pick(&[1, 1, 2, 2, 3, 5]).unwrap_or(1),
        })
    }
}

/// Collects the sentences of one passage.
struct Writer<'a> {
    world: &'a mut World,
    thing: Id,
    prose: &'static Recipe,
    orders: &'a Orders<'a>,
    /// What stands for some slots in the whole passage.
    mentions: Vec<(&'static str, String)>,
    /// The family name, or the kind of thing with its article.
    short: String,
    /// The thing that the sentence is about, and its relation to the passage's.
    other: Option<(&'static str, Id)>,
    patterns: Vec<&'static str>,
    said: Vec<Sentence>,
}

impl<'a> Writer<'a> {
    fn new(world: &'a mut World, thing: Id, orders: &'a Orders<'a>) -> Self {
        let prose = world.prose(thing);
        let short = world.dice.word(&prose.short);
        let mut writer = Self {
            short: fill_slots(short, &|what| world.text(thing, what)),
            mentions: vec![
                ("N", world.called(thing)),
                ("P", pronouns(world, thing)[2].to_owned()),
            ],
            thing,
            prose,
            orders,
            other: None,
            patterns: vec![],
            said: vec![],
            world,
        };
        let once = writer.rolls(&prose.once);
        writer.mentions.extend(once);
        writer
    }

    fn write(mut self) -> Vec<Sentence> {
        let mut taken = false;
        for step in &self.prose.plan {
            if step.otherwise && taken {
                continue;
            }
            taken = self.applies(step);
            if taken {
                self.take(step);
            }
        }
        self.said
    }

    fn applies(&mut self, step: &Step) -> bool {
        let fact = |what| self.world.fact(self.thing, what);
        let has = step.has.is_none_or(|what| fact(what).is_some());
        let said = |what| fact(what).is_some_and(|fact| self.has_said(&fact));
        let needed = |what| fact(what).is_some_and(|fact| self.orders.need.contains(&fact));
        let sure = step.or_needed.is_some_and(needed);
        // The dice are thrown only where all else allows the step.
        has && step.if_said.is_none_or(said)
            && (sure || step.chance.is_none_or(|p| self.world.dice.chance(p)))
    }

    fn take(&mut self, step: &Step) {
        let by = step.by.map_or("", |what| self.world.word(self.thing, what));
        let patterns = self.prose.text(step.text, by);
        match step.how {
            How::Lead => self.lead(patterns),
            How::Say => self.say(step.rank, patterns),
            How::Each => {
                for other in self.world.related(self.thing, step.text) {
                    self.other = Some((step.text, other));
                    let noun = self.world.prose(other).noun;
                    self.say(step.rank, self.prose.text(step.text, noun));
                }
                self.other = None;
            }
            How::Chat => {
                for _ in 0..step.count {
                    if let Some(pattern) = self.world.pattern(patterns, &self.patterns) {
                        self.push(step.rank, vec![], pattern);
                    }
                }
            }
        }
    }

    /// Opens the passage with a pattern whose facts may be said.
    fn lead(&mut self, patterns: &[&'static str]) {
        let allowed = |pattern: &&'static str| {
            let facts = self.facts(&[*pattern]);
            facts.is_some_and(|facts| self.may_say(&facts))
        };
        let allowed: Vec<_> = patterns.iter().copied().filter(allowed).collect();
        if let Some(pattern) = self.world.pattern(&allowed, &[]) {
            let facts = self.facts(&[pattern]).unwrap_or_default();
            self.push(0, facts, pattern);
        }
    }

    /// Says the facts of the patterns in one sentence, unless one is missing or was said.
    fn say(&mut self, rank: u8, patterns: &[&'static str]) {
        let Some(facts) = self.facts(patterns) else {
            return;
        };
        if facts.iter().any(|fact| self.has_said(fact)) || !self.may_say(&facts) {
            return;
        }
        let named = self.must_name(&facts);
        let mut fit = patterns.to_vec();
        fit.retain(|pattern| !named || pattern.contains("{S}"));
        if let Some(pattern) = self.world.pattern(&fit, &self.patterns) {
            self.push(rank, facts, pattern);
        }
    }

    /// The facts that stand for the slots of the patterns; `None` if there is not one for each.
    fn facts(&self, patterns: &[&'static str]) -> Option<Vec<Fact>> {
        let names = patterns.iter().flat_map(|&pattern| slots(pattern));
        names
            .filter(|name| !MENTIONS.contains(name) && !self.world.data.rolls.contains_key(name))
            .map(|name| self.fact(name))
            .collect()
    }

    fn fact(&self, slot: &'static str) -> Option<Fact> {
        if let Some((first, what)) = slot.split_once('.') {
            return self.world.fact(self.related(first)?, what);
        }
        match self.other {
            Some((what, other)) if what == slot => {
                Some(self.world.relation(self.thing, what, other))
            }
            _ => self.world.fact(self.thing, slot),
        }
    }

    /// The thing that the passage's thing has this relation to.
    fn related(&self, what: &str) -> Option<Id> {
        match self.other {
            Some((relation, other)) if relation == what => Some(other),
            _ => self.world.link(self.thing, what),
        }
    }

    /// What stands for a slot that is neither a mention nor rolled.
    fn value(&self, slot: &str) -> Option<String> {
        if let Some((first, what)) = slot.split_once('.') {
            return self.world.text(self.related(first)?, what);
        }
        match self.other {
            Some((what, other)) if what == slot => Some(self.world.called(other)),
            Some((_, other)) if slot == "sibling_word" => Some(self.sibling_word(other)),
            _ => self.world.text(self.thing, slot),
        }
    }

    fn sibling_word(&self, other: Id) -> String {
        let older = self.world.day(other, "born") < self.world.day(self.thing, "born");
        let age = if older { "older" } else { "younger" };
        let female = self.world.is_female(other);
        format!("{age} {}", if female { "sister" } else { "brother" })
    }

    fn has_said(&self, fact: &Fact) -> bool {
        self.said
            .iter()
            .any(|sentence| sentence.facts.contains(fact))
    }

    /// Whether a gold fact is said only where it is needed.
    fn may_say(&self, facts: &[Fact]) -> bool {
        let Orders { need, gold, .. } = self.orders;
        facts.iter().all(|f| !gold.contains(f) || need.contains(f))
    }

    fn must_name(&self, facts: &[Fact]) -> bool {
        self.orders.named && facts.iter().any(|f| self.orders.need.contains(f))
    }

    fn push(&mut self, rank: u8, facts: Vec<Fact>, pattern: &'static str) {
        self.patterns.push(pattern);
        let mut values = self.mentions.clone();
        values.extend(self.rolls(&self.prose.rolls));
        let [pronoun, object, _] = pronouns(self.world, self.thing);
        let (mut subject, mut object) = (pronoun.to_owned(), object.to_owned());
        if !self.world.dice.chance(55) {
            (subject, object) = (self.short.clone(), self.short.clone());
        }
        if self.must_name(&facts) {
            subject = self.world.called(self.thing);
        }
        values.extend([("S", subject), ("O", object)]);
        for name in slots(pattern) {
            if values.iter().all(|(known, _)| *known != name) {
                values.extend(self.value(name).map(|value| (name, value)));
            }
        }
        let text = fill(&mut self.world.dice, pattern, &|slot| {
            let found = values.iter().find(|(name, _)| *name == slot);
            found.map(|(_, value)| value.clone())
        });
        self.said.push(Sentence {
            text,
            facts,
            rank,
            tokens: 0,
            chosen: false,
        });
    }

    /// What some rolls give, as passages write it.
    fn rolls(&mut self, names: &[&'static str]) -> Vec<(&'static str, String)> {
        let mut values = Vec::new();
        for name in names {
            let draw = self.world.data.rolls.get(name);
            if let Some(value) = draw.and_then(|draw| self.world.draw(draw, self.thing)) {
                values.push((*name, self.world.written(&value)));
            }
        }
        values
    }
}

/// Slots that speak of the passage's thing.
pub(super) const MENTIONS: &[&str] = &["N", "S", "O", "P", "sibling_word"];

/// Subject, object and possessive.
fn pronouns(world: &World, thing: Id) -> [&'static str; 3] {
    match world.word(thing, "child") {
        "daughter" => ["she", "her", "her"],
        "son" => ["he", "him", "his"],
        _ => ["it", "it", "its"],
    }
}
