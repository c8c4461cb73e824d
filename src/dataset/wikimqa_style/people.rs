//! Births, marriages and siblings: how the world gets its people.

use super::names::NameOf;
use super::world::{Date, Id, Person, World};
use crate::dataset::dice::Dice;

/// What is decided about a person before they exist; the rest is left to chance.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) country: Option<Id>,
    pub(super) female: Option<bool>,
    pub(super) trade: Option<&'static str>,
    pub(super) first: Option<String>,
    pub(super) family: Option<String>,
    pub(super) born: Option<i32>,
}

/// Trades that need no work in the world.
const TRADES: &[&str] = &[
    "painter",
    "physician",
    "botanist",
    "architect",
    "journalist",
    "chess player",
    "cartographer",
    "judge",
    "cellist",
    "geologist",
    "schoolteacher",
    "sculptor",
    "mountaineer",
    "shipbuilder",
    "photographer",
    "linguist",
    "politician",
    "astronomer",
    "translator",
    "stage designer",
    "diplomat",
    "beekeeper",
    "organist",
    "civil engineer",
    "historian",
    "weaver",
    "pharmacist",
    "publisher",
    "long-distance runner",
    "goldsmith",
];

/// Nobody in the world is known to have died after this year.
const TODAY: i32 = 2015;

impl World {
    /// A new person without relatives.
    pub(super) fn person(&mut self, dice: &mut Dice, wanted: Wanted) -> Id {
        let country = wanted
            .country
            .unwrap_or_else(|| dice.below(self.countries.len()));
        let female = wanted.female.unwrap_or_else(|| dice.chance(45));
        let sex = if female { NameOf::Woman } else { NameOf::Man };
        let first = wanted
            .first
            .unwrap_or_else(|| self.names.fresh(dice, sex, country));
        let family = wanted
            .family
            .unwrap_or_else(|| self.names.fresh(dice, NameOf::Family, country));
        let born = Date::in_year(
            wanted.born.unwrap_or_else(|| dice.between(1872, 1958)),
            dice,
        );
        let birthplace = self.some_town(dice, country);
        let death_year = born.year + dice.between(47, 92);
        let died = (death_year < TODAY).then(|| {
            (
                Date::in_year(death_year, dice),
                self.some_town(dice, country),
            )
        });
        let trade = wanted.trade.unwrap_or_else(|| dice.word(TRADES));
        self.people.push(Person {
            first,
            family,
            female,
            country,
            trade,
            born,
            birthplace,
            died,
            parents: None,
            spouse: None,
            school: None,
        });
        self.people.len() - 1
    }

    /// Makes sure that a person has parents, who are married to each other.
    pub(super) fn give_parents(&mut self, dice: &mut Dice, child: Id) -> (Id, Id) {
        if let Some(parents) = self.people[child].parents {
            return parents;
        }
        let (country, born) = (self.people[child].country, self.people[child].born.year);
        let family = self.people[child].family.clone();
        let fathers_year = born - dice.between(28, 36);
        let father = self.person(
            dice,
            Wanted {
                country: Some(country),
                female: Some(false),
                family: Some(family),
                born: Some(fathers_year),
                ..Wanted::default()
            },
        );
        let mothers_year = born - dice.between(26, 32);
        let mother = self.person(
            dice,
            Wanted {
                country: Some(country),
                female: Some(true),
                born: Some(mothers_year),
                ..Wanted::default()
            },
        );
        let wedding = born - dice.between(7, 8);
        self.people[father].spouse = Some((mother, wedding));
        self.people[mother].spouse = Some((father, wedding));
        self.people[child].parents = Some((father, mother));
        (father, mother)
    }

    /// Makes sure that a person has a brother or sister.
    pub(super) fn give_sibling(&mut self, dice: &mut Dice, person: Id, female: bool) -> Id {
        let siblings = self.siblings(person);
        if let Some(&sibling) = siblings.iter().find(|&&s| self.people[s].female == female) {
            return sibling;
        }
        let parents = self.give_parents(dice, person);
        let of = &self.people[person];
        let (country, family, born) = (of.country, of.family.clone(), of.born.year);
        let gap = dice.between(2, 6) * if dice.chance(50) { 1 } else { -1 };
        let sibling = self.person(
            dice,
            Wanted {
                country: Some(country),
                female: Some(female),
                family: Some(family),
                born: Some(born + gap),
                ..Wanted::default()
            },
        );
        self.people[sibling].parents = Some(parents);
        sibling
    }

    /// Makes sure that a person is married.
    pub(super) fn give_spouse(&mut self, dice: &mut Dice, person: Id) -> Id {
        if let Some((spouse, _)) = self.people[person].spouse {
            return spouse;
        }
        let of = &self.people[person];
        let (country, female, born) = (of.country, of.female, of.born.year);
        let spouses_year = born + dice.between(-5, 5);
        let spouse = self.person(
            dice,
            Wanted {
                country: Some(country),
                female: Some(!female),
                born: Some(spouses_year),
                ..Wanted::default()
            },
        );
        let wedding = born.max(self.people[spouse].born.year) + dice.between(21, 30);
        self.people[person].spouse = Some((spouse, wedding));
        self.people[spouse].spouse = Some((person, wedding));
        spouse
    }

    /// Makes sure that a person went to a school.
    pub(super) fn give_school(&mut self, dice: &mut Dice, person: Id) -> Id {
        if let Some(school) = self.people[person].school {
            return school;
        }
        let school = self.school(dice, self.people[person].country, None);
        self.people[person].school = Some(school);
        school
    }
}
