//! The invented world: people, works, firms, schools, towns and rivers, and how they are related.

use std::fmt;

use super::names::{NameOf, Names};
use crate::dataset::dice::Dice;

/// Place of a thing in its list of the [`World`].
pub(super) type Id = usize;

/// Anything that can have a passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thing {
    Person(Id),
    Work(Id),
    House(Id),
    Town(Id),
    River(Id),
}

/// What a fact says about its thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Relation {
    /// Of a film its director, of a book its author, of a song its performer.
    Maker,
    /// The year of a work, or the founding year of a house.
    Year,
    /// The country, or a person's nationality.
    Country,
    /// The firm behind a work.
    Producer,
    Cast,
    Founder,
    /// The town of a house.
    Seat,
    Born,
    Birthplace,
    Died,
    DeathPlace,
    Father,
    Mother,
    /// Kept with the spouse who comes first.
    Spouse,
    /// Kept with the sibling who comes first.
    Sibling(Id),
    School,
    Length,
    Mouth,
    Population,
}

/// One thing that a sentence can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fact {
    pub(super) of: Thing,
    pub(super) what: Relation,
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Date {
    pub(super) year: i32,
    month: usize,
    day: i32,
}

const MONTHS: [(&str, i32); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

impl Date {
    /// A random day of `year`.
    pub(super) fn in_year(year: i32, dice: &mut Dice) -> Self {
        let month = dice.below(MONTHS.len());
        Self {
            year,
            month,
            day: dice.between(1, MONTHS[month].1),
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
        write!(f, "{} {} {}", self.day, MONTHS[self.month].0, self.year)
    }
}

#[derive(Debug)]
pub(super) struct Country {
    pub(super) name: String,
    pub(super) adjective: String,
}

#[derive(Debug)]
pub(super) struct Town {
    pub(super) name: String,
    pub(super) country: Id,
    pub(super) population: i32,
}

#[derive(Debug)]
pub(super) struct River {
    pub(super) name: String,
    pub(super) country: Id,
    pub(super) kilometres: i32,
    /// The river it flows into; none flows into the sea.
    pub(super) mouth: Option<Id>,
}

#[derive(Debug)]
pub(super) struct Person {
    pub(super) first: String,
    pub(super) family: String,
    pub(super) female: bool,
    pub(super) country: Id,
    pub(super) trade: &'static str,
    pub(super) born: Date,
    pub(super) birthplace: Id,
    pub(super) died: Option<(Date, Id)>,
    /// Father and mother.
    pub(super) parents: Option<(Id, Id)>,
    /// Spouse and year of the wedding.
    pub(super) spouse: Option<(Id, i32)>,
    pub(super) school: Option<Id>,
}

/// Kinds of [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkKind {
    Film,
    Book,
    Song,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) kind: WorkKind,
    pub(super) title: String,
    /// The invented word in the title, and the words around it.
    pub(super) key: String,
    pub(super) frame: &'static str,
    pub(super) genre: &'static str,
    pub(super) year: i32,
    pub(super) country: Id,
    pub(super) maker: Id,
    pub(super) producer: Id,
    pub(super) cast: Vec<Id>,
}

/// Kinds of [`House`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HouseKind {
    Firm,
    School,
}

#[derive(Debug)]
pub(super) struct House {
    pub(super) kind: HouseKind,
    pub(super) name: String,
    /// The invented word in the name.
    pub(super) key: String,
    pub(super) business: &'static str,
    pub(super) year: i32,
    pub(super) seat: Id,
    pub(super) founder: Id,
}

/// Everything there is, and the names already given.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) names: Names,
    pub(super) countries: Vec<Country>,
    pub(super) towns: Vec<Town>,
    pub(super) rivers: Vec<River>,
    pub(super) people: Vec<Person>,
    pub(super) works: Vec<Work>,
    pub(super) houses: Vec<House>,
}

impl World {
    /// A world with five countries and nothing in them.
    pub(super) fn new(dice: &mut Dice) -> Self {
        let mut world = Self::default();
        for sound in 0..5 {
            let name = world.names.fresh(dice, NameOf::Country, sound);
            let adjective = match name.strip_suffix(['a', 'e', 'o']) {
                Some(stem) if name.ends_with('a') => format!("{stem}an"),
                _ => format!("{name}an"),
            };
            world.countries.push(Country { name, adjective });
        }
        world
    }

    /// The title of a thing's passage.
    pub(super) fn title(&self, thing: Thing) -> String {
        match thing {
            Thing::Person(id) => self.name(id),
            Thing::Work(id) => self.works[id].title.clone(),
            Thing::House(id) => self.houses[id].name.clone(),
            Thing::Town(id) => self.towns[id].name.clone(),
            Thing::River(id) => format!("{} River", self.rivers[id].name),
        }
    }

    /// A person's full name.
    pub(super) fn name(&self, person: Id) -> String {
        let person = &self.people[person];
        format!("{} {}", person.first, person.family)
    }

    /// Country of a thing.
    pub(super) fn country(&self, thing: Thing) -> Id {
        match thing {
            Thing::Person(id) => self.people[id].country,
            Thing::Work(id) => self.works[id].country,
            Thing::House(id) => self.towns[self.houses[id].seat].country,
            Thing::Town(id) => self.towns[id].country,
            Thing::River(id) => self.rivers[id].country,
        }
    }

    /// The fact that two people are married.
    pub(super) fn marriage(&self, one: Id, other: Id) -> Fact {
        Fact {
            of: Thing::Person(one.min(other)),
            what: Relation::Spouse,
        }
    }

    /// The fact that two people are siblings.
    pub(super) fn kinship(&self, one: Id, other: Id) -> Fact {
        Fact {
            of: Thing::Person(one.min(other)),
            what: Relation::Sibling(one.max(other)),
        }
    }

    /// The fact about `thing`, kept with whom symmetric facts are kept; `None` if there is none.
    pub(super) fn fact(&self, thing: Thing, what: Relation) -> Option<Fact> {
        if let (Thing::Person(id), Relation::Spouse) = (thing, what) {
            return self.people[id]
                .spouse
                .map(|(other, _)| self.marriage(id, other));
        }
        if let (Thing::Person(id), Relation::Sibling(_)) = (thing, what) {
            return self
                .siblings(id)
                .first()
                .map(|&other| self.kinship(id, other));
        }
        let there = match (thing, what) {
            (Thing::Person(id), Relation::Died | Relation::DeathPlace) => {
                self.people[id].died.is_some()
            }
            (Thing::Person(id), Relation::Father | Relation::Mother) => {
                self.people[id].parents.is_some()
            }
            (Thing::Person(id), Relation::School) => self.people[id].school.is_some(),
            (Thing::River(id), Relation::Mouth) => self.rivers[id].mouth.is_some(),
            _ => true,
        };
        there.then_some(Fact { of: thing, what })
    }

    /// The towns of a country.
    pub(super) fn towns_of(&self, country: Id) -> Vec<Id> {
        (0..self.towns.len())
            .filter(|&town| self.towns[town].country == country)
            .collect()
    }

    /// Brothers and sisters.
    pub(super) fn siblings(&self, person: Id) -> Vec<Id> {
        let Some(parents) = self.people[person].parents else {
            return vec![];
        };
        (0..self.people.len())
            .filter(|&other| other != person && self.people[other].parents == Some(parents))
            .collect()
    }

    /// Sons and daughters.
    pub(super) fn children(&self, person: Id) -> Vec<Id> {
        let is_child = |parents: Option<(Id, Id)>| {
            parents.is_some_and(|(father, mother)| father == person || mother == person)
        };
        (0..self.people.len())
            .filter(|&child| is_child(self.people[child].parents))
            .collect()
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
        assert_eq!(day(1911, 2, 12).to_string(), "12 March 1911");
    }
}
