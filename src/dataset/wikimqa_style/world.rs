//! The invented world: things, and the facts by which they are related.

use std::collections::BTreeMap;
use std::fmt;

use super::data::{Data, Kind, Prose};
use super::names::Names;
use crate::dataset::dice::Dice;
use crate::dataset::text::{Deck, thousands};

/// Place of a thing in the [`World`].
pub(super) type Id = usize;

/// One thing that a sentence can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact {
    pub(super) of: Id,
    pub(super) what: &'static str,
    /// The other one of two siblings; otherwise the thing itself.
    pub(super) with: Id,
}

impl Fact {
    pub(super) fn new(of: Id, what: &'static str) -> Self {
        Self { of, what, with: of }
    }

    /// The fact that two people are married.
    pub(super) fn marriage(one: Id, other: Id) -> Self {
        Self::new(one.min(other), "spouse")
    }

    /// The fact that two people are siblings.
    pub(super) fn kinship(one: Id, other: Id) -> Self {
        Self {
            with: one.max(other),
            ..Self::new(one.min(other), "sibling")
        }
    }
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date {
    pub(super) year: i32,
    month: usize,
    name: &'static str,
    day: i32,
}

impl Date {
    /// A random day of `year`.
    pub(super) fn in_year(year: i32, data: &'static Data, dice: &mut Dice) -> Self {
        let month = dice.below(data.months.len());
        let (name, days) = data.months[month];
        Self {
            year,
            month,
            name,
            day: dice.between(1, days),
        }
    }

    /// Whole years from this day to `later`.
    pub(super) fn years_until(self, later: Self) -> i32 {
        let had_birthday = (later.month, later.day) >= (self.month, self.day);
        later.year - self.year - i32::from(!had_birthday)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.day, self.name, self.year)
    }
}

/// What a fact says of its thing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Word(&'static str),
    Number(i32),
    Inhabitants(i32),
    Kilometres(i32),
    Day(Date),
    Thing(Id),
}

/// Anything that can have a passage.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    /// The invented word in the title, of a person the family name; and the words around it, with `#`
    /// in its place.
    pub(super) key: String,
    pub(super) frame: String,
    pub(super) country: usize,
    pub(super) facts: BTreeMap<&'static str, Value>,
}

/// A country's name, and what comes from there.
#[derive(Debug)]
pub(super) struct Country {
    name: String,
    adjective: String,
}

/// Everything there is, and the names already given.
#[derive(Debug)]
pub(super) struct World {
    pub(super) data: &'static Data,
    pub(super) names: Names,
    pub(super) countries: Vec<Country>,
    pub(super) things: Vec<Thing>,
    pub(super) dice: Dice,
    pub(super) deck: Deck,
}

impl World {
    /// A world with a country for every sound and nothing in them.
    pub(super) fn new(data: &'static Data, mut dice: Dice) -> Self {
        let mut names = Names::new(data);
        let mut countries = Vec::new();
        for sound in &data.sounds {
            let name = names.fresh(&mut dice, sound, &data.country_ends);
            let adjective = format!("{}an", name.strip_suffix('a').unwrap_or(&name));
            countries.push(Country { name, adjective });
        }
        Self {
            data,
            names,
            countries,
            things: Vec::new(),
            dice,
            deck: Deck::default(),
        }
    }

    /// A pattern that the context has not used yet, as far as there is one, and that is not `here`.
    pub(super) fn draw(
        &mut self,
        list: &[&'static str],
        here: &[&'static str],
    ) -> Option<&'static str> {
        self.deck.draw(&mut self.dice, list, here)
    }

    /// The title of a thing's passage.
    pub(super) fn title(&self, thing: Id) -> String {
        let Thing { frame, key, .. } = &self.things[thing];
        frame.replace('#', key)
    }

    /// How things of this one's kind are made and written about.
    pub(super) fn prose(&self, thing: Id) -> &'static Prose {
        self.data.of(self.things[thing].kind)
    }

    /// A thing's title as running text has it.
    pub(super) fn called(&self, thing: Id) -> String {
        self.prose(thing).called.replace('#', &self.title(thing))
    }

    fn value(&self, thing: Id, what: &str) -> Option<Value> {
        self.things[thing].facts.get(what).copied()
    }

    /// The thing to which a fact leads.
    pub(super) fn link(&self, thing: Id, what: &str) -> Option<Id> {
        match self.value(thing, what)? {
            Value::Thing(other) => Some(other),
            _ => None,
        }
    }

    /// The word that a fact gives; empty without one.
    pub(super) fn word(&self, thing: Id, what: &str) -> &'static str {
        match self.value(thing, what) {
            Some(Value::Word(word)) => word,
            _ => "",
        }
    }

    /// The number, or the year, that a fact gives.
    pub(super) fn number(&self, thing: Id, what: &str) -> Option<i32> {
        match self.value(thing, what)? {
            Value::Number(n) | Value::Inhabitants(n) | Value::Kilometres(n) => Some(n),
            Value::Day(date) => Some(date.year),
            Value::Word(_) | Value::Thing(_) => None,
        }
    }

    /// The year in which a person was born.
    pub(super) fn born(&self, person: Id) -> i32 {
        self.number(person, "born").unwrap_or_default()
    }

    /// The day on which a person was born.
    pub(super) fn birthday(&self, person: Id) -> Option<Date> {
        match self.value(person, "born")? {
            Value::Day(date) => Some(date),
            _ => None,
        }
    }

    pub(super) fn is_female(&self, person: Id) -> bool {
        self.word(person, "child") == "daughter"
    }

    /// What passages write for a fact.
    pub(super) fn text(&self, thing: Id, what: &str) -> Option<String> {
        let country = &self.countries[self.things[thing].country];
        Some(match what {
            "country" => country.name.clone(),
            "nat" => country.adjective.clone(),
            "key" => self.things[thing].key.clone(),
            _ => match self.value(thing, what)? {
                Value::Word(word) => word.to_owned(),
                Value::Number(n) => n.to_string(),
                Value::Inhabitants(n) => thousands(n),
                Value::Kilometres(n) => format!("{n} kilometres"),
                Value::Day(date) => date.to_string(),
                Value::Thing(other) => self.called(other),
            },
        })
    }

    /// The fact about `thing`, kept with whom symmetric facts are kept; `None` if there is none.
    pub(super) fn fact(&self, thing: Id, what: &'static str) -> Option<Fact> {
        match what {
            "country" | "nat" => Some(Fact::new(thing, "country")),
            "spouse" | "sibling" => {
                let other = *self.related(thing, what).first()?;
                Some(self.relation(thing, what, other))
            }
            _ => self.value(thing, what).map(|_| Fact::new(thing, what)),
        }
    }

    /// The fact that `thing` stands in a relation to `other`, kept with whom it is kept.
    pub(super) fn relation(&self, thing: Id, what: &'static str, other: Id) -> Fact {
        match what {
            "spouse" => Fact::marriage(thing, other),
            "sibling" | "brother" | "sister" => Fact::kinship(thing, other),
            "offspring" if self.is_female(thing) => Fact::new(other, "mother"),
            "offspring" => Fact::new(other, "father"),
            "made" => Fact::new(other, "maker"),
            _ => Fact::new(thing, what),
        }
    }

    /// The things that pass a test, in the order in which they were made.
    pub(super) fn all(&self, is_one: impl Fn(&Thing) -> bool) -> Vec<Id> {
        let ids = 0..self.things.len();
        ids.filter(|&id| is_one(&self.things[id])).collect()
    }

    /// The towns of a country.
    pub(super) fn towns_of(&self, country: usize) -> Vec<Id> {
        self.all(|thing| thing.kind == Kind::Town && thing.country == country)
    }

    /// Father and mother.
    pub(super) fn parents(&self, person: Id) -> Option<(Id, Id)> {
        Some((self.link(person, "father")?, self.link(person, "mother")?))
    }

    /// Brothers and sisters.
    pub(super) fn siblings(&self, person: Id) -> Vec<Id> {
        let Some((father, _)) = self.parents(person) else {
            return vec![];
        };
        let mut siblings = self.leading_to(father, &["father"]);
        siblings.retain(|&other| other != person);
        siblings
    }

    /// The things that stand in a relation to `thing`.
    pub(super) fn related(&self, thing: Id, what: &str) -> Vec<Id> {
        match what {
            "sibling" => self.siblings(thing),
            "brother" | "sister" => {
                let mut siblings = self.siblings(thing);
                siblings.retain(|&id| self.is_female(id) == (what == "sister"));
                siblings
            }
            "offspring" => self.leading_to(thing, &["father", "mother"]),
            "made" => self.leading_to(thing, &["maker"]),
            _ => self.link(thing, what).into_iter().collect(),
        }
    }

    fn leading_to(&self, thing: Id, by: &[&str]) -> Vec<Id> {
        let leads = |value: Option<&Value>| matches!(value, Some(Value::Thing(id)) if *id == thing);
        self.all(|other| by.iter().any(|what| leads(other.facts.get(*what))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_count_birthdays() {
        let months = &Data::load().unwrap().months;
        let day = |year, month: usize, day| Date {
            year,
            month,
            name: months[month].0,
            day,
        };
        assert_eq!(day(1900, 4, 10).years_until(day(1950, 4, 9)), 49);
        assert_eq!(day(1900, 4, 10).years_until(day(1950, 4, 10)), 50);
        assert_eq!(day(1900, 4, 10).years_until(day(1950, 5, 1)), 50);
        assert!(day(1900, 4, 10) < day(1900, 5, 1));
        assert_eq!(day(1911, 2, 12).to_string(), "12 March 1911");
    }
}
