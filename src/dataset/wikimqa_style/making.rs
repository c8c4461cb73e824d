//! Births, marriages, foundations and works: how the world gets its things.

use super::data::Kind;
use super::world::{Date, Id, Thing, Value, World};

/// What is decided about a person before they exist; the rest is left to chance.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) country: Option<usize>,
    pub(super) female: Option<bool>,
    pub(super) trade: Option<&'static str>,
    /// The first name, with `#` behind it.
    pub(super) frame: Option<String>,
    pub(super) family: Option<String>,
    pub(super) born: Option<i32>,
}

impl Wanted {
    /// Anybody of a country.
    pub(super) fn of(country: usize) -> Self {
        Self {
            country: Some(country),
            ..Self::default()
        }
    }
}

/// Nobody in the world is known to have died after this year.
const TODAY: i32 = 2015;

impl World {
    fn add(
        &mut self,
        kind: Kind,
        (frame, key): (String, String),
        country: usize,
        facts: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Id {
        self.things.push(Thing {
            kind,
            key,
            frame,
            country,
            facts: facts.into_iter().collect(),
        });
        self.things.len() - 1
    }

    fn set(&mut self, thing: Id, what: &'static str, value: Value) {
        self.things[thing].facts.insert(what, value);
    }

    /// A new person without relatives.
    pub(super) fn person(&mut self, wanted: Wanted) -> Id {
        let places = self.countries.len();
        let country = wanted.country.unwrap_or_else(|| self.dice.below(places));
        let female = wanted.female.unwrap_or_else(|| self.dice.chance(45));
        let sound = &self.data.sounds[country];
        let (child, ends) = if female {
            ("daughter", &sound.women)
        } else {
            ("son", &sound.men)
        };
        let mut name = |ends| self.names.fresh(&mut self.dice, sound, ends);
        let frame = wanted.frame.unwrap_or_else(|| name(ends) + " #");
        let family = wanted.family.unwrap_or_else(|| name(&sound.families));
        let year = wanted.born.unwrap_or_else(|| self.dice.between(1872, 1958));
        let born = Date::in_year(year, self.data, &mut self.dice);
        let birthplace = self.some_town(country);
        let mut facts = vec![
            ("child", Value::Word(child)),
            ("born", Value::Day(born)),
            ("birthplace", Value::Thing(birthplace)),
        ];
        let death_year = year + self.dice.between(47, 92);
        if death_year < TODAY {
            let died = Date::in_year(death_year, self.data, &mut self.dice);
            let place = self.some_town(country);
            facts.extend([
                ("died", Value::Day(died)),
                ("death_place", Value::Thing(place)),
                ("age", Value::Number(born.years_until(died))),
            ]);
        }
        let trades = &self.data.trades;
        let trade = wanted.trade.unwrap_or_else(|| self.dice.word(trades));
        facts.push(("trade", Value::Word(trade)));
        self.add(Kind::Person, (frame, family), country, facts)
    }

    /// Somebody from the country of `person`, with the same family name where `shares_name` is set.
    fn relative(&mut self, person: Id, female: bool, shares_name: bool, born: i32) -> Id {
        let wanted = Wanted {
            female: Some(female),
            family: shares_name.then(|| self.things[person].key.clone()),
            born: Some(born),
            ..Wanted::of(self.things[person].country)
        };
        self.person(wanted)
    }

    fn marry(&mut self, one: Id, other: Id, wedding: i32) {
        for (person, spouse) in [(one, other), (other, one)] {
            self.set(person, "spouse", Value::Thing(spouse));
            self.set(person, "wedding", Value::Number(wedding));
        }
    }

    fn set_parents(&mut self, child: Id, (father, mother): (Id, Id)) {
        self.set(child, "father", Value::Thing(father));
        self.set(child, "mother", Value::Thing(mother));
    }

    /// Makes sure that a person has parents, who are married to each other.
    pub(super) fn give_parents(&mut self, child: Id) -> (Id, Id) {
        if let Some(parents) = self.parents(child) {
            return parents;
        }
        let born = self.born(child);
        let fathers_year = born - self.dice.between(28, 36);
        let father = self.relative(child, false, true, fathers_year);
        let mothers_year = born - self.dice.between(26, 32);
        let mother = self.relative(child, true, false, mothers_year);
        let wedding = born - self.dice.between(7, 8);
        self.marry(father, mother, wedding);
        self.set_parents(child, (father, mother));
        (father, mother)
    }

    /// Makes sure that a person has a brother or sister.
    pub(super) fn give_sibling(&mut self, person: Id, female: bool) -> Id {
        let mut siblings = self.siblings(person).into_iter();
        if let Some(sibling) = siblings.find(|&other| self.is_female(other) == female) {
            return sibling;
        }
        let parents = self.give_parents(person);
        let gap = self.dice.between(2, 6) * if self.dice.chance(50) { 1 } else { -1 };
        let sibling = self.relative(person, female, true, self.born(person) + gap);
        self.set_parents(sibling, parents);
        sibling
    }

    /// Makes sure that a person is married.
    pub(super) fn give_spouse(&mut self, person: Id) -> Id {
        if let Some(spouse) = self.link(person, "spouse") {
            return spouse;
        }
        let born = self.born(person);
        let spouses_year = born + self.dice.between(-5, 5);
        let female = !self.is_female(person);
        let spouse = self.relative(person, female, false, spouses_year);
        let wedding = born.max(spouses_year) + self.dice.between(21, 30);
        self.marry(person, spouse, wedding);
        spouse
    }

    /// Makes sure that a person went to a school.
    pub(super) fn give_school(&mut self, person: Id) {
        if self.link(person, "school").is_none() {
            let school = self.school(self.things[person].country, None);
            self.set(person, "school", Value::Thing(school));
        }
    }

    /// A new word that sounds like a town of the country.
    fn town_name(&mut self, country: usize) -> String {
        let sound = &self.data.sounds[country];
        self.names.fresh(&mut self.dice, sound, &sound.towns)
    }

    /// A new town.
    pub(super) fn town(&mut self, country: usize) -> Id {
        let name = self.town_name(country);
        let population = match self.dice.below(3) {
            0 => self.dice.between(900, 9_000),
            1 => self.dice.between(9_000, 70_000),
            _ => self.dice.between(70_000, 400_000),
        };
        let size = match population {
            ..5_000 => "village",
            5_000..70_000 => "town",
            _ => "city",
        };
        let facts = [
            ("population", Value::Inhabitants(population)),
            ("size", Value::Word(size)),
        ];
        self.add(Kind::Town, ("#".to_owned(), name), country, facts)
    }

    /// A town of the country, new ones becoming rarer the more it has.
    fn some_town(&mut self, country: usize) -> Id {
        let towns = self.towns_of(country);
        let known = (self.dice.below(towns.len() + 4) >= 4).then(|| self.dice.pick(&towns));
        known.flatten().unwrap_or_else(|| self.town(country))
    }

    /// A new river, flowing into another where `tributary` is set.
    pub(super) fn river(&mut self, country: usize, tributary: bool) -> Id {
        let mouth = tributary.then(|| self.river(country, false));
        let sound = &self.data.sounds[country];
        let name = self.names.fresh(&mut self.dice, sound, &sound.rivers);
        let (low, high) = if tributary { (18, 160) } else { (190, 890) };
        let length = Value::Kilometres(self.dice.between(low, high));
        let facts = mouth.map(|mouth| ("mouth", Value::Thing(mouth)));
        let facts = facts.into_iter().chain([("length", length)]);
        self.add(Kind::River, ("# River".to_owned(), name), country, facts)
    }

    /// A new firm; `for_works` makes it a film studio, publisher or record label founded before a
    /// given year.
    pub(super) fn firm(&mut self, country: usize, for_works: Option<(Kind, i32)>) -> Id {
        let (form, years) = match for_works {
            Some((kind, before)) => (self.data.of(kind).producer, (before - 28, before - 1)),
            None => {
                let houses = &self.data.of(Kind::Firm).houses;
                (self.dice.pick(houses).unwrap_or_default(), (1870, 1985))
            }
        };
        let year = self.dice.between(years.0, years.1);
        self.house(Kind::Firm, country, form, year)
    }

    /// A new school, sharing the invented word of another where `key` is given and the name is free.
    pub(super) fn school(&mut self, country: usize, key: Option<String>) -> Id {
        let schools = &self.data.of(Kind::School).houses;
        let form = self.dice.pick(schools).unwrap_or_default();
        let year = self.dice.between(1790, 1880);
        let id = self.house(Kind::School, country, form, year);
        if let Some(key) = key.filter(|key| self.names.take(&form.0.replace('#', key))) {
            self.things[id].key = key;
        }
        id
    }

    fn house(
        &mut self,
        kind: Kind,
        country: usize,
        (frame, business): (&'static str, &'static str),
        year: i32,
    ) -> Id {
        let key = self.town_name(country);
        self.names.take(&frame.replace('#', &key));
        let seat = self.some_town(country);
        let trade = self.data.of(kind).trade;
        let founder = self.tradesman(country, trade, year, (27, 44));
        let facts = [
            ("business", Value::Word(business)),
            ("year", Value::Number(year)),
            ("seat", Value::Thing(seat)),
            ("maker", Value::Thing(founder)),
        ];
        self.add(kind, (frame.to_owned(), key), country, facts)
    }

    /// A new work by `maker`, easily confused with another: by the words around the invented one where
    /// `like` says true, otherwise by the invented word.
    pub(super) fn work(&mut self, kind: Kind, maker: Id, like: Option<(Id, bool)>) -> Id {
        let prose = self.data.of(kind);
        let country = self.things[maker].country;
        let other = like.map(|(other, _)| &self.things[other]);
        let (mut key, frame) = match (like, other) {
            (Some((_, false)), Some(Thing { key, frame, .. })) => {
                let mut frames = prose.titles.clone();
                frames.retain(|other| other != frame);
                (key.clone(), self.dice.word(&frames).to_owned())
            }
            (_, other) => {
                let frame = other.map(|other| other.frame.clone());
                let key = self.town_name(country);
                let new = || self.dice.word(&prose.titles).to_owned();
                (key, frame.unwrap_or_else(new))
            }
        };
        if !self.names.take(&frame.replace('#', &key)) {
            key = self.town_name(country);
            self.names.take(&frame.replace('#', &key));
        }
        let born = self.born(maker);
        let last = self.number(maker, "died").unwrap_or(2012);
        // A film needs cinemas and a song a gramophone.
        let first = if kind == Kind::Book { 0 } else { 1914 };
        let year = self.dice.between(born + 26, (born + 60).min(last));
        let year = year.max(first).min(last.max(first));
        let producer = self.some_producer(kind, country, year);
        let mut facts = vec![
            ("maker", Value::Thing(maker)),
            ("year", Value::Number(year)),
            ("producer", Value::Thing(producer)),
        ];
        if kind == Kind::Film {
            for role in ["star", "co_star"] {
                facts.push((
                    role,
                    Value::Thing(self.tradesman(country, "actor", year, (22, 44))),
                ));
            }
        }
        facts.push(("genre", Value::Word(self.dice.word(&prose.genres))));
        self.add(kind, (frame, key), country, facts)
    }

    /// A maker of works, with relatives and a school, so that many things could be asked.
    pub(super) fn maker(&mut self, kind: Kind, country: Option<usize>) -> Id {
        let born = Some(self.dice.between(1886, 1916));
        let wanted = Wanted {
            country,
            trade: Some(self.data.of(kind).trade),
            born,
            ..Wanted::default()
        };
        let person = self.person(wanted);
        self.give_parents(person);
        self.give_spouse(person);
        self.give_school(person);
        if self.dice.chance(40) {
            self.equip(person, "sibling");
        }
        person
    }

    /// A kind of work, at random.
    pub(super) fn some_kind(&mut self) -> Kind {
        let kinds = [Kind::Film, Kind::Film, Kind::Book, Kind::Song];
        self.dice.pick(&kinds).unwrap_or(Kind::Film)
    }

    pub(super) fn some_country(&mut self) -> usize {
        self.dice.below(self.countries.len())
    }

    /// Makes sure that a relation of a person exists, as far as it can be arranged.
    pub(super) fn equip(&mut self, person: Id, what: &str) {
        match what {
            "father" | "mother" => _ = self.give_parents(person),
            "spouse" => _ = self.give_spouse(person),
            "sibling" => {
                let female = self.dice.chance(50);
                self.give_sibling(person, female);
            }
            "school" if self.born(person) > 1890 => self.give_school(person),
            _ => {}
        }
    }

    /// Somebody with a trade, born so many years before `year`.
    fn tradesman(
        &mut self,
        country: usize,
        trade: &'static str,
        year: i32,
        (least, most): (i32, i32),
    ) -> Id {
        let born = Some(year - self.dice.between(least, most));
        let trade = Some(trade);
        self.person(Wanted {
            trade,
            born,
            ..Wanted::of(country)
        })
    }

    /// A firm old enough to have produced a work of `year`.
    fn some_producer(&mut self, kind: Kind, country: usize, year: i32) -> Id {
        let business = self.data.of(kind).producer.1;
        let mut known = self.all(|thing| thing.kind == Kind::Firm && thing.country == country);
        known.retain(|&firm| {
            self.word(firm, "business") == business
                && self
                    .number(firm, "year")
                    .is_some_and(|founded| founded < year)
        });
        let known = self.dice.chance(50).then(|| self.dice.pick(&known));
        known
            .flatten()
            .unwrap_or_else(|| self.firm(country, Some((kind, year))))
    }
}
