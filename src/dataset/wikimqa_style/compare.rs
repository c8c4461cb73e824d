//! Questions that compare two things, or two works by their makers.

use super::people::Wanted;
use super::prose_works;
use super::question::{Question, Type, maker, maker_word, some_kind};
use super::world::{Fact, Id, Relation, Thing, WorkKind, World};
use crate::dataset::dice::Dice;

/// What two things are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    WorkYear,
    FirmYear,
    Born,
    Died,
    Length,
    Population,
    RiverCountry,
    TownCountry,
    WorkCountry,
    Nationality,
}

impl Compared {
    pub(super) const ALL: [Self; 10] = [
        Self::WorkYear,
        Self::Born,
        Self::RiverCountry,
        Self::Died,
        Self::FirmYear,
        Self::Length,
        Self::TownCountry,
        Self::Population,
        Self::WorkCountry,
        Self::Nationality,
    ];
    /// What the makers of two works are compared by.
    pub(super) const BRIDGED: [Self; 3] = [Self::Born, Self::Died, Self::Nationality];

    fn relation(self) -> Relation {
        match self {
            Self::WorkYear | Self::FirmYear => Relation::Year,
            Self::Born => Relation::Born,
            Self::Died => Relation::Died,
            Self::Length => Relation::Length,
            Self::Population => Relation::Population,
            _ => Relation::Country,
        }
    }

    /// A number that orders the things; equal ones cannot be compared.
    fn measure(self, world: &World, thing: Thing) -> Option<i32> {
        Some(match (self, thing) {
            (Self::WorkYear, Thing::Work(id)) => world.works[id].year,
            (Self::FirmYear, Thing::House(id)) => world.houses[id].year,
            (Self::Born, Thing::Person(id)) => world.people[id].born.year,
            (Self::Died, Thing::Person(id)) => world.people[id].died?.0.year,
            (Self::Length, Thing::River(id)) => world.rivers[id].kilometres,
            (Self::Population, Thing::Town(id)) => world.towns[id].population,
            _ => return None,
        })
    }
}

/// Two countries, the same half of the time.
fn two_countries(world: &World, dice: &mut Dice) -> [Id; 2] {
    let one = dice.below(world.countries.len());
    let other = (one + 1 + dice.below(world.countries.len() - 1)) % world.countries.len();
    if dice.chance(50) {
        [one, one]
    } else {
        [one, other]
    }
}

/// A question that compares two things by a fact of each.
pub(super) fn comparison(world: &mut World, dice: &mut Dice, by: Compared) -> Option<Question> {
    let countries = two_countries(world, dice);
    let kind = some_kind(dice);
    let person_kind = some_kind(dice);
    let things = countries.map(|country| match by {
        Compared::WorkYear | Compared::WorkCountry => {
            let kind = if by == Compared::WorkCountry {
                WorkKind::Film
            } else {
                kind
            };
            let wanted = Wanted {
                country: Some(country),
                ..Wanted::default()
            };
            let person = maker(world, dice, kind, wanted);
            Thing::Work(world.work(dice, kind, person, None))
        }
        Compared::FirmYear => Thing::House(world.firm(dice, country, None)),
        Compared::Born | Compared::Died | Compared::Nationality => {
            let wanted = Wanted {
                country: Some(country),
                ..Wanted::default()
            };
            Thing::Person(maker(world, dice, person_kind, wanted))
        }
        Compared::Length | Compared::RiverCountry => {
            let tributary = dice.chance(50);
            Thing::River(world.river(dice, country, tributary))
        }
        Compared::Population | Compared::TownCountry => Thing::Town(world.town(dice, country)),
    });
    let [a, b] = things.map(|thing| named_in_question(world, thing));
    let noun = noun(kind);
    let (question, larger) = match by {
        Compared::WorkYear if dice.chance(60) => (format!("Which {noun} came out first"), false),
        Compared::WorkYear => (format!("Which {noun} came out later"), true),
        Compared::FirmYear => ("Which company was founded earlier".to_owned(), false),
        Compared::Born if dice.chance(60) => ("Who was born first".to_owned(), false),
        Compared::Born => ("Who was born later".to_owned(), true),
        Compared::Died => ("Who died first".to_owned(), false),
        Compared::Length if dice.chance(60) => ("Which river is longer".to_owned(), true),
        Compared::Length => ("Which river is shorter".to_owned(), false),
        Compared::Population => ("Which place has more inhabitants".to_owned(), true),
        Compared::RiverCountry => (format!("Are {a} and {b} in the same country"), false),
        Compared::TownCountry => (format!("Are {a} and {b} in the same country"), false),
        Compared::WorkCountry => (
            format!("Are the films {a} and {b} from the same country"),
            false,
        ),
        Compared::Nationality => (format!("Do {a} and {b} have the same nationality"), false),
    };
    let yes_or_no = by.relation() == Relation::Country;
    let text = if yes_or_no {
        format!("{question}?")
    } else {
        format!("{question}, {a} or {b}?")
    };
    let answer = if yes_or_no {
        same_country(world, things)
    } else {
        world.title(decide(world, by, things, things, larger)?)
    };
    let gold = things
        .map(|thing| {
            (
                thing,
                Fact {
                    of: thing,
                    what: by.relation(),
                },
            )
        })
        .to_vec();
    Some(Question {
        kind: Type::Comparison,
        text,
        answer,
        gold,
        answer_is_subject: !yes_or_no,
    })
}

fn noun(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Film => "film",
        WorkKind::Book => "book",
        WorkKind::Song => "song",
    }
}

fn named_in_question(world: &World, thing: Thing) -> String {
    match thing {
        Thing::River(_) => format!("the {}", world.title(thing)),
        Thing::Work(id) => prose_works::in_text(&world.works[id]),
        _ => world.title(thing),
    }
}

fn same_country(world: &World, [a, b]: [Thing; 2]) -> String {
    let same = world.country(a) == world.country(b);
    if same { "yes" } else { "no" }.to_owned()
}

/// The one of `asked` whose counterpart in `measured` has the smaller (or larger) measure.
fn decide(
    world: &World,
    by: Compared,
    measured: [Thing; 2],
    asked: [Thing; 2],
    larger: bool,
) -> Option<Thing> {
    let [a, b] = [
        by.measure(world, measured[0])?,
        by.measure(world, measured[1])?,
    ];
    // A near tie would be a question about arithmetic, not about the passages.
    let apart = if by == Compared::Population { 1000 } else { 2 };
    (a.abs_diff(b) >= apart).then(|| {
        if (a < b) == larger {
            asked[1]
        } else {
            asked[0]
        }
    })
}

/// A question that compares two works by a fact about their makers.
pub(super) fn bridge_comparison(
    world: &mut World,
    dice: &mut Dice,
    by: Compared,
) -> Option<Question> {
    let countries = two_countries(world, dice);
    let kind = some_kind(dice);
    let makers = countries.map(|country| {
        maker(
            world,
            dice,
            kind,
            Wanted {
                country: Some(country),
                ..Wanted::default()
            },
        )
    });
    let works = makers.map(|person| Thing::Work(world.work(dice, kind, person, None)));
    let people = makers.map(Thing::Person);
    let [a, b] = works.map(|work| named_in_question(world, work));
    let (noun, who) = (noun(kind), maker_word(kind));
    let (text, larger) = match by {
        Compared::Nationality => (
            format!("Do the {who}s of the {noun}s {a} and {b} have the same nationality?"),
            false,
        ),
        Compared::Died => (
            format!("Which {noun} has the {who} who died earlier, {a} or {b}?"),
            false,
        ),
        _ if dice.chance(50) => (
            format!("Which {noun} has the {who} who was born first, {a} or {b}?"),
            false,
        ),
        _ => (
            format!("Which {noun} has the {who} who was born later, {a} or {b}?"),
            true,
        ),
    };
    let yes_or_no = by == Compared::Nationality;
    let answer = if yes_or_no {
        same_country(world, people)
    } else {
        world.title(decide(world, by, people, works, larger)?)
    };
    let mut gold = Vec::new();
    for (work, person) in works.into_iter().zip(people) {
        gold.push((
            work,
            Fact {
                of: work,
                what: Relation::Maker,
            },
        ));
        gold.push((
            person,
            Fact {
                of: person,
                what: by.relation(),
            },
        ));
    }
    let kind = Type::BridgeComparison;
    Some(Question {
        kind,
        text,
        answer,
        gold,
        answer_is_subject: !yes_or_no,
    })
}
