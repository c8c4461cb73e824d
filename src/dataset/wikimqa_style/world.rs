//! The invented world: things, and the facts by which they are related.

use std::collections::{BTreeMap, HashMap};

use super::data::{Data, Kind, Recipe};
use super::names::Names;
use crate::dataset::dice::Dice;
use crate::dataset::text::{Deck, fill_slots, thousands};

/// Place of a thing in the [`World`].
pub(super) type Id = usize;

/// One thing that a sentence can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact {
    pub(super) of: Id,
    pub(super) what: &'static str,
    /// The other one of two relatives; otherwise the thing itself.
    pub(super) with: Id,
}

impl Fact {
    pub(super) fn new(of: Id, what: &'static str) -> Self {
        Self { of, what, with: of }
    }

    /// A fact of two people, the same from both sides.
    pub(super) fn between(one: Id, what: &'static str, other: Id) -> Self {
        let (of, with) = (one.min(other), one.max(other));
        Self { of, what, with }
    }
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date {
    year: i32,
    /// From 0.
    month: usize,
    day: i32,
}

impl Date {
    /// A random day of `year`.
    pub(super) fn in_year(year: i32, data: &Data, dice: &mut Dice) -> Self {
        let month = dice.below(data.months.len());
        let day = dice.between(1, data.months[month].1);
        Self { year, month, day }
    }

    /// Whole years from this day to `later`.
    pub(super) fn years_until(self, later: Self) -> i32 {
        let had_birthday = (later.month, later.day) >= (self.month, self.day);
        later.year - self.year - i32::from(!had_birthday)
    }
}

/// What a fact says of its thing.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Word(&'static str),
    Name(String),
    Number(i32),
    /// A number written with commas, and of what.
    Amount(i32, &'static str),
    Day(Date),
    /// Place among the countries.
    Country(usize),
    Thing(Id),
}

/// What there is to say of a thing.
pub(super) type Facts = BTreeMap<&'static str, Value>;

/// Anything that can have a passage.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    pub(super) facts: Facts,
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
    /// Things made to be confused with others.
    pub(super) twins: HashMap<Id, Id>,
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
            twins: HashMap::new(),
            dice,
            deck: Deck::default(),
        }
    }

    /// A pattern that the context has not used yet, as far as there is one, and that is not `here`.
    pub(super) fn pattern(
        &mut self,
        list: &[&'static str],
        here: &[&'static str],
    ) -> Option<&'static str> {
        self.deck.draw(&mut self.dice, list, here)
    }

    /// How things of this one's kind are written about and asked for.
    pub(super) fn prose(&self, thing: Id) -> &'static Recipe {
        self.data.prose(self.things[thing].kind)
    }

    /// The title of a thing's passage.
    pub(super) fn title(&self, thing: Id) -> String {
        let text = |what: &str| self.text(thing, what);
        let key = text("key").unwrap_or_default();
        fill_slots(self.prose(thing).title, &text).replace('#', &key)
    }

    /// A thing's title as running text has it.
    pub(super) fn called(&self, thing: Id) -> String {
        self.prose(thing).called.replace('#', &self.title(thing))
    }

    /// What a fact says; `maker.born` is a fact of the thing to which `maker` leads.
    pub(super) fn value(&self, thing: Id, what: &str) -> Option<&Value> {
        match what.split_once('.') {
            Some((first, what)) => self.value(self.link(thing, first)?, what),
            None => self.things[thing].facts.get(what),
        }
    }

    /// Some facts, to be given to another thing.
    pub(super) fn copies(&self, thing: Id, facts: &[&'static str]) -> Facts {
        let copy = |what: &&'static str| Some((*what, self.value(thing, what)?.clone()));
        facts.iter().filter_map(copy).collect()
    }

    /// The thing to which a fact leads.
    pub(super) fn link(&self, thing: Id, what: &str) -> Option<Id> {
        match self.value(thing, what)? {
            Value::Thing(other) => Some(*other),
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
            Value::Number(n) | Value::Amount(n, _) => Some(*n),
            Value::Day(date) => Some(date.year),
            _ => None,
        }
    }

    /// The day that a fact gives.
    pub(super) fn day(&self, thing: Id, what: &str) -> Option<Date> {
        match self.value(thing, what)? {
            Value::Day(date) => Some(*date),
            _ => None,
        }
    }

    /// The place of a thing's country among all.
    pub(super) fn country(&self, thing: Id) -> usize {
        match self.value(thing, "country") {
            Some(Value::Country(country)) => *country,
            _ => 0,
        }
    }

    /// The year in which a person was born.
    pub(super) fn born(&self, person: Id) -> i32 {
        self.number(person, "birth_year").unwrap_or_default()
    }

    pub(super) fn is_female(&self, person: Id) -> bool {
        self.word(person, "child") == "daughter"
    }

    /// What passages write for a fact.
    pub(super) fn text(&self, thing: Id, what: &str) -> Option<String> {
        if what == "nat" {
            return Some(self.countries[self.country(thing)].adjective.clone());
        }
        Some(self.written(self.value(thing, what)?))
    }

    /// What passages write for a value.
    pub(super) fn written(&self, value: &Value) -> String {
        match value {
            Value::Word(word) => (*word).to_owned(),
            Value::Name(name) => name.clone(),
            Value::Number(n) => n.to_string(),
            Value::Amount(n, unit) => format!("{} {unit}", thousands(*n)).trim_end().to_owned(),
            Value::Day(Date { year, month, day }) => {
                format!("{day} {} {year}", self.data.months[*month].0)
            }
            Value::Country(country) => self.countries[*country].name.clone(),
            Value::Thing(other) => self.called(*other),
        }
    }

    /// The fact about `thing`, kept with whom symmetric facts are kept; `None` if there is none.
    pub(super) fn fact(&self, thing: Id, what: &'static str) -> Option<Fact> {
        match what {
            "nat" => Some(Fact::new(thing, "country")),
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
            "spouse" => Fact::between(thing, what, other),
            "sibling" | "brother" | "sister" => Fact::between(thing, "sibling", other),
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
        let day = |year, month, day| Date { year, month, day };
        assert_eq!(day(1900, 4, 10).years_until(day(1950, 4, 9)), 49);
        assert_eq!(day(1900, 4, 10).years_until(day(1950, 4, 10)), 50);
        assert_eq!(day(1900, 4, 10).years_until(day(1950, 5, 1)), 50);
        assert!(day(1900, 4, 10) < day(1900, 5, 1));
        let world = World::new(Data::load().unwrap(), Dice::new(1, 0));
        assert_eq!(
            world.written(&Value::Day(day(1911, 2, 12))),
            "12 March 1911"
        );
    }
}
