//! A passage in the making: its title and the sentences it could have.

use std::collections::HashSet;

use super::world::{Fact, Id, Relation, Thing, World};
use super::{prose_houses, prose_people, prose_places, prose_works};
use crate::dataset::dice::Dice;
use crate::dataset::text::{Deck, Slots, fill};

/// One sentence of a passage.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    pub(super) text: String,
    pub(super) facts: Vec<Fact>,
    /// Sentences stand in a passage in this order.
    pub(super) rank: u8,
    /// Whether the sentence is in the passage.
    pub(super) chosen: bool,
}

/// A passage in the making.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) thing: Thing,
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
    pub(super) fn new(
        world: &World,
        thing: Thing,
        orders: &Orders<'_>,
        dice: &mut Dice,
        deck: &mut Deck,
    ) -> Option<Self> {
        let mut writer = Writer {
            world,
            thing,
            orders,
            dice,
            deck,
            slots: vec![],
            rolls: vec![],
            mentions: None,
            patterns: vec![],
            said: vec![],
        };
        match thing {
            Thing::Person(id) => prose_people::write(&mut writer, id),
            Thing::Work(id) => prose_works::write(&mut writer, id),
            Thing::House(id) => prose_houses::write(&mut writer, id),
            Thing::Town(id) => prose_places::write_town(&mut writer, id),
            Thing::River(id) => prose_places::write_river(&mut writer, id),
        }
        let mut sentences = writer.said;
        sentences.sort_by_key(|sentence| sentence.rank);
        for fact in orders.need {
            sentences
                .iter_mut()
                .find(|s| s.facts.contains(fact))?
                .chosen = true;
        }
        sentences.first_mut()?.chosen = true;
        let appetite = dice.pick(&[1, 1, 2, 2, 3, 5]).unwrap_or(1);
        Some(Self {
            thing,
            title: world.title(thing),
            sentences,
            appetite,
        })
    }
}

/// How a passage speaks of its subject.
#[derive(Clone, Debug)]
pub(super) struct Mentions {
    pub(super) full: String,
    /// The family name, or the kind of thing with its article.
    pub(super) short: String,
    /// he, she, it.
    pub(super) pronoun: &'static str,
    /// him, her, it.
    pub(super) object: &'static str,
    /// his, her, its.
    pub(super) possessive: &'static str,
}

/// A slot that is filled anew for each sentence.
#[derive(Clone, Debug)]
pub(super) enum Roll {
    /// A number within bounds.
    Number(i32, i32),
    /// One of some words.
    Word(&'static [&'static str]),
    /// The name of one of some towns.
    Town(Vec<Id>),
}

/// Collects the sentences of one passage.
pub(super) struct Writer<'a> {
    pub(super) world: &'a World,
    pub(super) thing: Thing,
    orders: &'a Orders<'a>,
    pub(super) dice: &'a mut Dice,
    deck: &'a mut Deck,
    slots: Slots,
    rolls: Vec<(&'static str, Roll)>,
    mentions: Option<Mentions>,
    patterns: Vec<&'static str>,
    said: Vec<Sentence>,
}

impl Writer<'_> {
    /// Sets how the passage speaks of its subject.
    pub(super) fn introduce(&mut self, mentions: Mentions) {
        self.slot("N", mentions.full.clone());
        self.slot("P", mentions.possessive.to_owned());
        self.mentions = Some(mentions);
    }

    /// Sets what stands for a slot of the patterns.
    pub(super) fn slot(&mut self, name: &'static str, value: impl Into<String>) {
        self.slots.retain(|(slot, _)| *slot != name);
        self.slots.push((name, value.into()));
    }

    /// Lets a slot be filled anew for each sentence.
    pub(super) fn roll(&mut self, name: &'static str, roll: Roll) {
        self.rolls.push((name, roll));
    }

    /// Whether a sentence says the fact `what` of the passage's thing.
    pub(super) fn has_said(&self, what: Relation) -> bool {
        let fact = self.fact(what);
        self.said
            .iter()
            .any(|sentence| sentence.facts.contains(&fact))
    }

    /// Whether the passage must say the fact `what` of its thing.
    pub(super) fn must_say(&self, what: Relation) -> bool {
        self.orders.need.contains(&self.fact(what))
    }

    /// The fact `what` of the passage's thing.
    pub(super) fn fact(&self, what: Relation) -> Fact {
        self.world.fact(self.thing, what).unwrap_or(Fact {
            of: self.thing,
            what,
        })
    }

    /// Opens the passage with one of several leads, each with the facts it says.
    pub(super) fn lead(&mut self, leads: &[(&[Relation], &'static str)]) {
        let mut allowed = Vec::new();
        for (what, pattern) in leads {
            let facts: Vec<_> = what.iter().map(|&what| self.fact(what)).collect();
            if self.may_say(&facts) {
                allowed.push((facts, *pattern));
            }
        }
        let patterns: Vec<_> = allowed.iter().map(|(_, pattern)| *pattern).collect();
        let Some(pattern) = self.deck.draw(self.dice, &patterns, &[]) else {
            return;
        };
        if let Some((facts, _)) = allowed.into_iter().find(|(_, p)| *p == pattern) {
            self.push(0, facts, pattern);
        }
    }

    /// Says facts of the passage's thing in one sentence, unless they were said.
    pub(super) fn say(&mut self, rank: u8, what: &[Relation], patterns: &[&'static str]) {
        let facts = what.iter().map(|&what| self.fact(what)).collect();
        self.say_facts(rank, facts, patterns);
    }

    /// Says any facts in one sentence, unless they were said.
    pub(super) fn say_facts(&mut self, rank: u8, facts: Vec<Fact>, patterns: &[&'static str]) {
        let said = |fact: &Fact| {
            self.said
                .iter()
                .any(|sentence| sentence.facts.contains(fact))
        };
        if facts.iter().any(said) || !self.may_say(&facts) {
            return;
        }
        let named = self.must_name(&facts);
        let fit: Vec<_> = patterns
            .iter()
            .copied()
            .filter(|p| !named || p.contains("{S}"))
            .collect();
        if let Some(pattern) = self.deck.draw(self.dice, &fit, &self.patterns) {
            self.push(rank, facts, pattern);
        }
    }

    /// Adds sentences that say nothing anybody will ask for.
    pub(super) fn chat(&mut self, rank: u8, count: usize, patterns: &[&'static str]) {
        for _ in 0..count {
            if let Some(pattern) = self.deck.draw(self.dice, patterns, &self.patterns) {
                self.push(rank, vec![], pattern);
            }
        }
    }

    /// Whether a gold fact is said only where it is needed.
    fn may_say(&self, facts: &[Fact]) -> bool {
        facts
            .iter()
            .all(|f| !self.orders.gold.contains(f) || self.orders.need.contains(f))
    }

    fn must_name(&self, facts: &[Fact]) -> bool {
        self.orders.named && facts.iter().any(|f| self.orders.need.contains(f))
    }

    fn push(&mut self, rank: u8, facts: Vec<Fact>, pattern: &'static str) {
        self.patterns.push(pattern);
        for (name, roll) in self.rolls.clone() {
            let value = match roll {
                Roll::Number(low, high) => self.dice.between(low, high.max(low)).to_string(),
                Roll::Word(words) => self.dice.word(words).to_owned(),
                Roll::Town(towns) => match self.dice.pick(&towns) {
                    Some(town) => self.world.towns[town].name.clone(),
                    None => "the old ford".to_owned(),
                },
            };
            self.slot(name, value);
        }
        let named = self.must_name(&facts);
        if let Some(mentions) = self.mentions.clone() {
            let by_pronoun = self.dice.chance(55);
            let object = if by_pronoun {
                mentions.object.to_owned()
            } else {
                mentions.short.clone()
            };
            let subject = match () {
                () if named => mentions.full,
                () if by_pronoun => mentions.pronoun.to_owned(),
                () => mentions.short,
            };
            self.slot("S", subject);
            self.slot("O", object);
        }
        let text = fill(self.dice, pattern, &self.slots);
        self.said.push(Sentence {
            text,
            facts,
            rank,
            chosen: false,
        });
    }
}
