//! Prose about firms and schools.

use super::passage::{Mentions, Writer};
use super::world::Relation::{self, Country, Founder, Seat, Year};
use super::world::{HouseKind, Id};

const LEADS: &[(&[Relation], &str)] = &[
    (&[Seat], "{N} is a~ {business} based in {seat}."),
    (
        &[Seat, Year],
        "{N} is a~ {business} in {seat}, founded in {year}.",
    ),
    (&[Country], "{N} is a~ {nat} {business}."),
    (
        &[Country, Year],
        "{N}, founded in {year}, is a~ {nat} {business}.",
    ),
    (
        &[],
        "{N} is a~ {business} [with a long history|of moderate size|run as a family foundation].",
    ),
    (
        &[Founder, Year],
        "{N} is a~ {business} founded by {founder} in {year}.",
    ),
];
const FOUNDER: &[&str] = &[
    "{S} was founded by {founder}.",
    "{S} was founded by {founder}, [with borrowed money|against the advice of the family|in rented rooms].",
    "The founder of {S} was {founder}.",
    "{S} owes its existence to {founder}, who [sold a farm to pay for it|remained in charge for decades].",
];
const YEAR: &[&str] = &[
    "{S} was founded in {year}.",
    "{S} [goes back to|dates from] {year}.",
    "{S} was established in {year}, [in a former stable|with a staff of {few}|under another name].",
];
const SEAT: &[&str] = &[
    "{S} is based in {seat}.",
    "{S} has its seat in {seat}, [close to the station|in a brick building by the water|on a hill above the town].",
    "The main building of {S} stands in {seat}.",
];
const FIRM_CHAT: &[&str] = &[
    "{S} employed {staff} people at its height.",
    "A fire in {later} [destroyed the main hall|spared only the office], but work resumed within {few} months.",
    "The firm [moved into new premises|bought out a competitor|opened a branch in {town}] in {later}.",
    "Its [catalogues|account books|early posters] are kept in a museum in {town}.",
    "The staff [went on strike|elected a council|formed an orchestra] in {later}.",
    "{S} was sold to [a group of investors|its employees|a foundation] in {later}.",
    "The trade mark shows [a heron|two crossed keys|a lantern|an anchor].",
    "The company's [brass band|football team|lending library] was known far beyond {town}.",
    "Exports [grew slowly|collapsed] after {later}.",
    "Its former [warehouse|canteen] in {town} is now [a theatre|a block of flats].",
];
const SCHOOL_CHAT: &[&str] = &[
    "{S} has about {staff} pupils and students.",
    "The library holds {few} thousand volumes, [among them old atlases|many of them gifts].",
    "Girls were first admitted in {later}.",
    "The school [moved to its present building|added a wing|closed for a year] in {later}.",
    "Its motto, [carved above the gate|printed on every diploma], praises [patience|curiosity|plain speech].",
    "The rowing club [is older than the chapel|won a cup in {later}].",
    "A branch in {town} was [opened|given up] in {later}.",
    "The clock tower was paid for by [former pupils|a wool merchant] in {later}.",
    "Lessons were held in [a convent|an inn|the town hall] for the first {few} years.",
    "Its botanical garden is open [on Sundays|in summer].",
];

/// All that could be said about a firm or a school.
pub(super) fn write(writer: &mut Writer<'_>, id: Id) {
    let world = writer.world;
    let house = &world.houses[id];
    let country = world.towns[house.seat].country;
    let towns: Vec<_> = (0..world.towns.len())
        .filter(|&t| world.towns[t].country == country)
        .collect();
    let town = writer.dice.pick(&towns).unwrap_or(house.seat);
    let short = match house.kind {
        HouseKind::Firm => writer.dice.word(&["the company", "the firm"]),
        HouseKind::School => "the school",
    };
    let later = (house.year + writer.dice.between(12, 60)).min(2014);
    let staff = writer.dice.between(4, 190) * 10;
    let few = writer
        .dice
        .word(&["three", "four", "five", "six", "eight", "nine"]);
    writer.introduce(Mentions {
        full: house.name.clone(),
        short: short.to_owned(),
        pronoun: "it",
        object: "it",
        possessive: "its",
    });
    for (name, value) in [
        ("business", house.business.to_owned()),
        ("seat", world.towns[house.seat].name.clone()),
        ("year", house.year.to_string()),
        ("nat", world.countries[country].adjective.clone()),
        ("founder", world.name(house.founder)),
        ("town", world.towns[town].name.clone()),
        ("later", later.to_string()),
        ("staff", super::text::thousands(staff)),
        ("few", few.to_owned()),
    ] {
        writer.slot(name, value);
    }
    writer.lead(LEADS);
    writer.say(10, &[Founder], FOUNDER);
    writer.say(12, &[Year], YEAR);
    writer.say(14, &[Seat], SEAT);
    let chat = match house.kind {
        HouseKind::Firm => FIRM_CHAT,
        HouseKind::School => SCHOOL_CHAT,
    };
    writer.chat(40, 5, chat);
}
