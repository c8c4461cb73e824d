//! How the world gets its things: the facts that the data lists for their kind, and relatives.

use super::data::{Draw, Fill, Kind, Making, Number};
use super::world::{Date, Facts, Id, Thing, Value, World};
use crate::dataset::text::fill_slots;

/// Nobody in the world is known to have died in this year or later.
const TODAY: i32 = 2015;

impl World {
    /// A kind, or one of those for which it stands.
    pub(super) fn some_kind(&mut self, kind: Kind) -> Kind {
        match self.data.recipe(kind).one_of[..] {
            [] => kind,
            ref kinds => {
                let one = self.dice.pick(kinds).unwrap_or(kind);
                self.some_kind(one)
            }
        }
    }

    /// A new thing of a kind with some facts given; all others are drawn.
    pub(super) fn make(&mut self, kind: Kind, given: Facts) -> Id {
        self.make_with(kind, given, &[], 0)
    }

    /// A new thing, of whose facts some are drawn from another thing.
    pub(super) fn make_with(
        &mut self,
        kind: Kind,
        facts: Facts,
        with: &'static [Fill],
        from: Id,
    ) -> Id {
        let kind = self.some_kind(kind);
        self.things.push(Thing { kind, facts });
        let thing = self.things.len() - 1;
        self.fill(thing, with, from);
        for recipe in self.data.recipes(kind) {
            self.fill(thing, &recipe.facts, thing);
        }
        for recipe in self.data.recipes(kind) {
            self.fill(thing, &recipe.then, thing);
        }
        let title = self.title(thing);
        self.names.take(&title);
        thing
    }

    fn make_for(&mut self, making: &'static Making, thing: Id) -> Id {
        let country = self.copies(thing, &["country"]);
        self.make_with(making.kind, country, &making.with, thing)
    }

    /// Something easily confused with a thing; the same at every call.
    pub(super) fn twin(&mut self, thing: Id) -> Id {
        if let Some(twin) = self.twins.get(&thing) {
            return *twin;
        }
        let kind = self.things[thing].kind;
        let mut recipes = self.data.recipes(kind);
        let twin = match recipes.find_map(|recipe| recipe.twin.as_ref()) {
            Some(making) => self.make_for(making, thing),
            None => self.make(kind, self.copies(thing, &["country"])),
        };
        self.twins.insert(thing, twin);
        twin
    }

    pub(super) fn some_country(&mut self) -> Value {
        Value::Country(self.dice.below(self.countries.len()))
    }

    /// Gives a thing the facts it lacks, drawing them from a thing.
    fn fill(&mut self, thing: Id, facts: &'static [Fill], from: Id) {
        for fill in facts {
            let has = |what| self.things[thing].facts.contains_key(what);
            let open = !has(fill.fact) && fill.has.is_none_or(has) && !fill.unless.is_some_and(has);
            if open
                && fill.chance.is_none_or(|p| self.dice.chance(p))
                && let Some(value) = self.draw(&fill.draw, from)
            {
                self.things[thing].facts.insert(fill.fact, value);
            }
        }
    }

    /// A value for `thing`; `None` where a fact that it needs is missing.
    pub(super) fn draw(&mut self, draw: &'static Draw, thing: Id) -> Option<Value> {
        Some(match draw {
            Draw::Country => self.some_country(),
            Draw::Town => {
                let towns = self.known(Kind::Town, thing);
                let known = self.dice.below(towns.len() + 4) >= 4;
                let known = known.then(|| self.dice.pick(&towns)).flatten();
                let new = || self.make(Kind::Town, self.copies(thing, &["country"]));
                Value::Thing(known.unwrap_or_else(new))
            }
            Draw::OtherTown => {
                let towns = self.known(Kind::Town, thing);
                let town = self.dice.pick(&towns);
                town.map_or(Value::Word("the old ford"), Value::Thing)
            }
            Draw::Word(words) => Value::Word(self.dice.word(words)),
            Draw::Title(frames) => {
                let key = self.text(thing, "key")?;
                let mut frames = frames.clone();
                frames.retain(|frame| self.names.is_free(&frame.replace('#', &key)));
                Value::Word(self.dice.word(&frames))
            }
            Draw::Invent(ends) => {
                let sound = &self.data.sounds[self.country(thing)];
                let ends = fill_slots(ends, &|what| self.text(thing, what));
                let ends = sound.ends.get(ends.as_str())?;
                Value::Name(self.names.fresh(&mut self.dice, sound, ends))
            }
            Draw::Copy(what) => self.value(thing, what)?.clone(),
            Draw::Free(what) => {
                let name = self.text(thing, what)?;
                let title = self.word(thing, "frame").replace('#', &name);
                self.names.is_free(&title).then_some(Value::Name(name))?
            }
            Draw::Twin(what) => Value::Thing(*self.twins.get(&self.link(thing, what)?)?),
            Draw::By(what, words) => Value::Word(words.get(self.word(thing, what))?),
            Draw::Number(number) => self.draw_number(number, thing)?,
            Draw::Grade(what, grades) => {
                let number = self.number(thing, what)?;
                Value::Word(grades.iter().find(|(above, _)| number < *above)?.1)
            }
            Draw::DayIn(what) => {
                let year = self.number(thing, what).filter(|year| *year < TODAY)?;
                Value::Day(Date::in_year(year, self.data, &mut self.dice))
            }
            Draw::Years(from, to) => {
                Value::Number(self.day(thing, from)?.years_until(self.day(thing, to)?))
            }
            Draw::OneOf(draws) => {
                let draw = self.dice.below(draws.len());
                return self.draw(draws.get(draw)?, thing);
            }
            Draw::New(making) => Value::Thing(self.make_for(making, thing)),
            Draw::Known(chance, making) => {
                let known = self.known(making.kind, thing);
                let known = self.dice.chance(*chance).then(|| self.dice.pick(&known));
                let new = || self.make_for(making, thing);
                Value::Thing(known.flatten().unwrap_or_else(new))
            }
            Draw::Kin(what) => {
                self.equip(thing, what);
                return None;
            }
        })
    }

    fn draw_number(&mut self, number: &Number, thing: Id) -> Option<Value> {
        let (low, high) = number.between;
        let base = number.after.or(number.before);
        let base = base.map_or(Some(0), |what| self.number(thing, what))?;
        let drawn = if number.before.is_some() {
            base - self.dice.between(low, high)
        } else {
            let end = |(what, more)| Some(self.number(thing, what)? + more);
            let ends = [number.until.and_then(end), number.most];
            let high = ends.into_iter().flatten().fold(base + high, i32::min);
            self.dice.between(base + low, high.max(base + low))
        };
        let (least, most) = number.within.unwrap_or((i32::MIN, i32::MAX));
        let drawn = drawn.clamp(least, most) * number.times.unwrap_or(1);
        Some(match number.unit {
            Some(unit) => Value::Amount(drawn, unit),
            None => Value::Number(drawn),
        })
    }

    /// Things of a kind from the country of `thing`, and older where they have a year.
    fn known(&self, kind: Kind, thing: Id) -> Vec<Id> {
        let (country, year) = (self.country(thing), self.number(thing, "year"));
        let mut known = self.all(|other| other.kind == kind);
        known.retain(|&other| {
            let older = self.number(other, "year").is_none_or(|y| Some(y) < year);
            other != thing && older && self.country(other) == country
        });
        known
    }

    /// Somebody with some of the facts of `person`.
    fn relative(
        &mut self,
        person: Id,
        shares: &[&'static str],
        child: &'static str,
        born: i32,
    ) -> Id {
        let mut facts = self.copies(person, shares);
        facts.insert("child", Value::Word(child));
        facts.insert("birth_year", Value::Number(born));
        self.make(Kind::Person, facts)
    }

    fn marry(&mut self, one: Id, other: Id, wedding: i32) {
        for (person, spouse) in [(one, other), (other, one)] {
            let facts = &mut self.things[person].facts;
            facts.insert("spouse", Value::Thing(spouse));
            facts.insert("wedding", Value::Number(wedding));
        }
    }

    /// Makes sure that a person has parents, who are married to each other.
    pub(super) fn give_parents(&mut self, child: Id) -> (Id, Id) {
        if let Some(parents) = self.parents(child) {
            return parents;
        }
        let born = self.born(child);
        let fathers_year = born - self.dice.between(28, 36);
        let father = self.relative(child, &["country", "key"], "son", fathers_year);
        let mothers_year = born - self.dice.between(26, 32);
        let mother = self.relative(child, &["country"], "daughter", mothers_year);
        let wedding = born - self.dice.between(7, 8);
        self.marry(father, mother, wedding);
        let facts = &mut self.things[child].facts;
        facts.insert("father", Value::Thing(father));
        facts.insert("mother", Value::Thing(mother));
        (father, mother)
    }

    /// Makes sure that a person has a brother or sister.
    pub(super) fn give_sibling(&mut self, person: Id, female: bool) -> Id {
        let mut siblings = self.siblings(person).into_iter();
        if let Some(sibling) = siblings.find(|&other| self.is_female(other) == female) {
            return sibling;
        }
        self.give_parents(person);
        let gap = self.dice.between(2, 6) * if self.dice.chance(50) { 1 } else { -1 };
        let child = if female { "daughter" } else { "son" };
        let born = self.born(person) + gap;
        self.relative(person, &["country", "key", "father", "mother"], child, born)
    }

    /// Makes sure that a person is married.
    pub(super) fn give_spouse(&mut self, person: Id) -> Id {
        if let Some(spouse) = self.link(person, "spouse") {
            return spouse;
        }
        let born = self.born(person);
        let spouses_year = born + self.dice.between(-5, 5);
        let child = if self.is_female(person) {
            "son"
        } else {
            "daughter"
        };
        let spouse = self.relative(person, &["country"], child, spouses_year);
        let wedding = born.max(spouses_year) + self.dice.between(21, 30);
        self.marry(person, spouse, wedding);
        spouse
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
            "school" if self.born(person) > 1890 && self.link(person, what).is_none() => {
                let school = self.make(Kind::School, self.copies(person, &["country"]));
                self.things[person]
                    .facts
                    .insert("school", Value::Thing(school));
            }
            _ => {}
        }
    }
}
