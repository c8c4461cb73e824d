//! Prose about firms and schools.

use super::passage::{Mentions, Roll, Writer};
use super::world::Relation::{self, Country, Founder, Seat, Year};
use super::world::{HouseKind, Id};
use crate::dataset::text::{FEW, thousands};

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
    "{S} goes back to a plan of {founder}, the founder.",
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
    "{S} occupies [a former barracks|two old warehouses|a plain stone building] in {seat}.",
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
    "A catalogue of {later} [lists {few} hundred articles|has become a collector's item].",
    "The chimney, [a landmark of {town}|struck by lightning twice], was pulled down in {later}.",
    "Two floods in {later} [ruined the stock|reached the first floor].",
    "Apprentices came from as far as {town}, [most of them on foot|attracted by the pay].",
    "The firm paid for [a kindergarten|a public bath|a footbridge] in {later}.",
    "An attempt to enter foreign markets [failed|succeeded only] in {later}.",
    "A museum of the firm's history [was opened|closed] in {later}.",
    "Its night shift was [abolished|introduced] in {later}.",
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
    "Corporal punishment was [abolished|forbidden] there in {later}.",
    "The teachers [struck|went without pay] for {few} weeks in {later}.",
    "A well-known portrait gallery [hangs on the stairs|was sold in {later}].",
    "Its observatory [is used by amateurs|was built by the pupils] and dates from {later}.",
    "The school magazine [has appeared without a break since {later}|was banned in {later}].",
    "The dining hall [seats {few} hundred|has a painted ceiling].",
    "The clock tower was paid for by [former pupils|a wool merchant] in {later}.",
    "Lessons were held in [a convent|an inn|the town hall] for the first {few} years.",
    "Its botanical garden is open [on Sundays|in summer].",
];

/// All that could be said about a firm or a school.
pub(super) fn write(writer: &mut Writer<'_>, id: Id) {
    let world = writer.world;
    let house = &world.houses[id];
    let country = world.towns[house.seat].country;
    let short = match house.kind {
        HouseKind::Firm => writer.dice.word(&["the company", "the firm"]),
        HouseKind::School => "the school",
    };
    let staff = writer.dice.between(4, 190) * 10;
    writer.roll("town", Roll::Town(world.towns_of(country)));
    writer.roll(
        "later",
        Roll::Number(house.year + 12, (house.year + 90).min(2014)),
    );
    writer.roll("few", Roll::Word(FEW));
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
        ("staff", thousands(staff)),
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
