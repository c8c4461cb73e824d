//! Towns, rivers, works, firms and schools: how the world gets its things.

use super::names::NameOf;
use super::people::Wanted;
use super::world::{House, HouseKind, Id, River, Town, Work, WorkKind, World};
use crate::dataset::dice::Dice;

const FILM_TITLES: &[&str] = &[
    "The Bells of #",
    "A Winter in #",
    "The Road to #",
    "Letters from #",
    "The # Inheritance",
    "Beyond #",
    "The Lamplighter of #",
    "Last Ferry to #",
    "The Clockmaker of #",
    "Snow over #",
    "The # Affair",
    "Children of #",
    "# by Night",
    "The Orchard at #",
    "A Stranger in #",
    "The Trial of #",
];
const BOOK_TITLES: &[&str] = &[
    "The Widow of #",
    "A Map of #",
    "The # Ledger",
    "# and Other Ghosts",
    "The Salt Fields of #",
    "The Gardener of #",
    "Seven Days in #",
    "The House on # Street",
    "The # Letters",
    "Ashes of #",
];
const SONG_TITLES: &[&str] = &[
    "Lights of #",
    "Carry Me to #",
    "# Waltz",
    "Rain on #",
    "The Ballad of #",
    "Goodnight to #",
    "My Heart in #",
    "Under # Skies",
];
const FIRM_NAMES: &[(&str, &str)] = &[
    ("# Optical Works", "maker of lenses and binoculars"),
    ("# Shipyard", "builder of river steamers"),
    ("# Pottery", "maker of stoneware"),
    ("# Brewery", "brewer of dark beers"),
    ("# Carriage Works", "builder of railway carriages"),
    ("# Instruments", "maker of pianos and harmoniums"),
    ("# Paper Mill", "maker of fine writing paper"),
    ("# Airlines", "regional airline"),
    ("# Motors", "maker of light lorries"),
];
const SCHOOL_NAMES: &[(&str, &str)] = &[
    ("# College", "college of arts and sciences"),
    ("# Academy", "boarding school"),
    ("# Polytechnic", "technical college"),
    ("# Grammar School", "secondary school"),
    ("# School of Art", "art school"),
];
const FILM_GENRES: &[&str] = &[
    "drama",
    "comedy",
    "adventure",
    "crime",
    "historical drama",
    "mystery",
    "war",
    "romance",
];
const BOOK_GENRES: &[&str] = &[
    "novel",
    "historical novel",
    "crime novel",
    "epistolary novel",
    "family saga",
    "novella",
];
const SONG_GENRES: &[&str] = &[
    "ballad",
    "folk song",
    "pop song",
    "waltz",
    "torch song",
    "jazz song",
];

/// The trade of those who make works of a kind.
pub(super) fn maker_trade(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Film => "film director",
        WorkKind::Book => "novelist",
        WorkKind::Song => "singer",
    }
}

/// The trade of those who found firms and schools.
pub(super) fn founder_trade(kind: HouseKind) -> &'static str {
    match kind {
        HouseKind::Firm => "industrialist",
        HouseKind::School => "educator",
    }
}

/// How firms that produce works of a kind are named, and what they are.
pub(super) fn producer_form(kind: WorkKind) -> (&'static str, &'static str) {
    match kind {
        WorkKind::Film => ("# Pictures", "film studio"),
        WorkKind::Book => ("# Press", "publishing house"),
        WorkKind::Song => ("# Records", "record label"),
    }
}

/// What a new thing's name shares with another's, to be easily confused with it.
#[derive(Clone, Debug)]
pub(super) enum Like {
    /// The words around the invented one.
    Frame(&'static str),
    /// The invented word.
    Key(String, &'static str),
}

impl World {
    /// A new town.
    pub(super) fn town(&mut self, dice: &mut Dice, country: Id) -> Id {
        let name = self.names.fresh(dice, NameOf::Town, country);
        let population = match dice.below(3) {
            0 => dice.between(900, 9_000),
            1 => dice.between(9_000, 70_000),
            _ => dice.between(70_000, 400_000),
        };
        self.towns.push(Town {
            name,
            country,
            population,
        });
        self.towns.len() - 1
    }

    /// A town of the country, new ones becoming rarer the more it has.
    pub(super) fn some_town(&mut self, dice: &mut Dice, country: Id) -> Id {
        let towns: Vec<_> = (0..self.towns.len())
            .filter(|&id| self.towns[id].country == country)
            .collect();
        let known = if dice.below(towns.len() + 4) >= 4 {
            dice.pick(&towns)
        } else {
            None
        };
        known.unwrap_or_else(|| self.town(dice, country))
    }

    /// A new river, flowing into another where `tributary` is set.
    pub(super) fn river(&mut self, dice: &mut Dice, country: Id, tributary: bool) -> Id {
        let mouth = tributary.then(|| self.river(dice, country, false));
        let name = self.names.fresh(dice, NameOf::River, country);
        let kilometres = if tributary {
            dice.between(18, 160)
        } else {
            dice.between(190, 890)
        };
        self.rivers.push(River {
            name,
            country,
            kilometres,
            mouth,
        });
        self.rivers.len() - 1
    }

    /// A new firm; `for_works` makes it a film studio, publisher or record label founded before a
    /// given year.
    pub(super) fn firm(
        &mut self,
        dice: &mut Dice,
        country: Id,
        for_works: Option<(WorkKind, i32)>,
    ) -> Id {
        let (form, years) = match for_works {
            Some((kind, before)) => (producer_form(kind), (before - 28, before - 1)),
            None => (
                dice.pick(FIRM_NAMES)
                    .unwrap_or(("# Works", "engineering firm")),
                (1870, 1985),
            ),
        };
        let year = dice.between(years.0, years.1);
        self.house(dice, HouseKind::Firm, country, form, year)
    }

    /// A new school, sharing the invented word of another where `key` is given.
    pub(super) fn school(&mut self, dice: &mut Dice, country: Id, key: Option<String>) -> Id {
        let (frame, business) = dice
            .pick(SCHOOL_NAMES)
            .unwrap_or(("# College", "college of arts and sciences"));
        let year = dice.between(1790, 1880);
        let id = self.house(dice, HouseKind::School, country, (frame, business), year);
        if let Some(key) = key {
            self.rename_house(id, key, frame);
        }
        id
    }

    /// Gives a house the invented word of another, unless that name is taken.
    pub(super) fn rename_house(&mut self, id: Id, key: String, frame: &str) {
        let name = frame.replace('#', &key);
        if self.names.take(&name) {
            (self.houses[id].name, self.houses[id].key) = (name, key);
        }
    }

    fn house(
        &mut self,
        dice: &mut Dice,
        kind: HouseKind,
        country: Id,
        (frame, business): (&'static str, &'static str),
        year: i32,
    ) -> Id {
        let key = self.names.fresh(dice, NameOf::Town, country);
        let name = frame.replace('#', &key);
        self.names.take(&name);
        let seat = self.some_town(dice, country);
        let born = year - dice.between(27, 44);
        let founder = self.person(
            dice,
            Wanted {
                country: Some(country),
                trade: Some(founder_trade(kind)),
                born: Some(born),
                ..Wanted::default()
            },
        );
        self.houses.push(House {
            kind,
            name,
            key,
            business,
            year,
            seat,
            founder,
        });
        self.houses.len() - 1
    }

    /// A new work by `maker`.
    pub(super) fn work(
        &mut self,
        dice: &mut Dice,
        kind: WorkKind,
        maker: Id,
        like: Option<Like>,
    ) -> Id {
        let (frames, genres) = match kind {
            WorkKind::Film => (FILM_TITLES, FILM_GENRES),
            WorkKind::Book => (BOOK_TITLES, BOOK_GENRES),
            WorkKind::Song => (SONG_TITLES, SONG_GENRES),
        };
        let country = self.people[maker].country;
        let fresh =
            |world: &mut Self, dice: &mut Dice| world.names.fresh(dice, NameOf::Town, country);
        let (key, frame) = match like {
            Some(Like::Frame(frame)) => (fresh(self, dice), frame),
            Some(Like::Key(key, not)) => {
                let others: Vec<_> = frames.iter().copied().filter(|f| *f != not).collect();
                (key, dice.word(&others))
            }
            None => (fresh(self, dice), dice.word(frames)),
        };
        let mut title = frame.replace('#', &key);
        let mut key = key;
        if !self.names.take(&title) {
            key = fresh(self, dice);
            title = frame.replace('#', &key);
            self.names.take(&title);
        }
        let born = self.people[maker].born.year;
        let last = self.people[maker].died.map_or(2012, |(died, _)| died.year);
        // A film needs cinemas and a song a gramophone.
        let first = if kind == WorkKind::Book { 0 } else { 1914 };
        let year = dice
            .between(born + 26, (born + 60).min(last))
            .max(first)
            .min(last.max(first));
        let producer = self.some_producer(dice, kind, country, year);
        let cast = match kind {
            WorkKind::Film => (0..2).map(|_| self.actor(dice, country, year)).collect(),
            _ => vec![],
        };
        let genre = dice.word(genres);
        self.works.push(Work {
            kind,
            title,
            key,
            frame,
            genre,
            year,
            country,
            maker,
            producer,
            cast,
        });
        self.works.len() - 1
    }

    fn actor(&mut self, dice: &mut Dice, country: Id, year: i32) -> Id {
        let born = Some(year - dice.between(22, 44));
        let trade = Some("actor");
        self.person(
            dice,
            Wanted {
                country: Some(country),
                trade,
                born,
                ..Wanted::default()
            },
        )
    }

    /// A firm old enough to have produced a work of `year`.
    fn some_producer(&mut self, dice: &mut Dice, kind: WorkKind, country: Id, year: i32) -> Id {
        let business = producer_form(kind).1;
        let fits = |house: &House| {
            house.business == business
                && house.year < year
                && self.towns[house.seat].country == country
        };
        let known: Vec<_> = (0..self.houses.len())
            .filter(|&id| fits(&self.houses[id]))
            .collect();
        let known = if dice.chance(50) {
            dice.pick(&known)
        } else {
            None
        };
        known.unwrap_or_else(|| self.firm(dice, country, Some((kind, year))))
    }
}
