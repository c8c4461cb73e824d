//! Prose about towns and rivers.

use super::passage::{Mentions, Roll, Writer};
use super::world::Relation::{self, Country, Length, Mouth, Population};
use super::world::{Id, Thing};
use crate::dataset::text::{FEW, thousands};

const TOWN_LEADS: &[(&[Relation], &str)] = &[
    (&[Country], "{N} is a~ {size} in {country}."),
    (&[Country], "{N} is a~ {size} in the {region} of {country}."),
    (
        &[Country, Population],
        "{N} is a~ {size} in {country} with {population} inhabitants.",
    ),
    (
        &[Population],
        "{N} is a~ {size} of {population} inhabitants.",
    ),
    (
        &[],
        "{N} is a~ {size} [on a wide plain|at the foot of a chain of hills|surrounded by orchards|on an old salt road].",
    ),
];
const TOWN_COUNTRY: &[&str] = &[
    "{S} lies in {country}.",
    "{S} [belongs to|is part of] {country}, [not far from the border|in its quieter half].",
    "{S} is situated in the {region} of {country}.",
];
const TOWN_POPULATION: &[&str] = &[
    "{S} has {population} inhabitants.",
    "At the last census {S} had {population} inhabitants.",
    "By the latest count {S} has {population} inhabitants.",
];
const TOWN_CHAT: &[&str] = &[
    "The market square is dominated by [a brick church|an arcaded town hall|a dry fountain].",
    "A branch railway reached the town in {year} [and was closed again after {few} decades|and changed its trade].",
    "The town burned down in {old_year} and was rebuilt [on a regular plan|in stone|a little further uphill].",
    "{S} is known for its [plum brandy|lace|smoked cheese|wooden toys|ropes].",
    "A fair is held [every third Sunday in May|at the end of the harvest|in the first week of October].",
    "The old walls, [{few} of whose towers remain|now a promenade], enclose a maze of lanes.",
    "Its [tannery|glassworks|sugar factory] was the largest employer until {year}.",
    "The local museum shows [clocks|fishing gear|costumes|minerals].",
    "Charter rights were granted in {old_year}.",
    "The dialect of the town [is hard to follow|has its own word for fog].",
    "The station, {few} kilometres outside, is served by [two trains a day|a bus].",
    "Its [bell foundry|printing works|observatory] was moved to {town} in {year}.",
    "The road to {town} [was paved only in {year}|climbs through {few} hairpin bends].",
    "Storks nest on [the grain store|the old gatehouse].",
    "A mutiny in {old_year} ended [without a shot|in the cellar of the town hall].",
    "The harbour on the lake [has silted up|is used by pleasure boats].",
    "The weekly market moved to [the station square|the old parade ground] in {year}.",
    "A theatre with {few} hundred seats was built in {year}.",
    "The coat of arms shows [a bear|a millstone|three fishes].",
    "A hot spring [drew visitors|was used for bathing] until {year}.",
];
const RIVER_LEADS: &[(&[Relation], &str)] = &[
    (&[Country], "The {N} is a~ river in {country}."),
    (
        &[Country, Length],
        "The {N} is a~ river in {country}, {length} kilometres long.",
    ),
    (&[Length], "The {N} is a~ river {length} kilometres long."),
    (
        &[],
        "The {N} is a~ [slow|narrow|clear|swift] river [known for its trout|with many weirs|lined with poplars].",
    ),
];
const RIVER_COUNTRY: &[&str] = &[
    "{S} flows through {country}.",
    "{S} runs through {country} [from end to end|without touching any large town|and nowhere crosses its border].",
    "{S} lies entirely within {country}.",
];
const RIVER_LENGTH: &[&str] = &[
    "{S} is {length} kilometres long.",
    "{S} has a length of {length} kilometres[, including its source brook|].",
    "From source to mouth {S} measures {length} kilometres.",
];
const RIVER_MOUTH: &[&str] = &[
    "{S} flows into the {mouth}.",
    "{S} is a tributary of the {mouth}.",
    "{S} joins the {mouth} [below a steep bank|after a last wide bend|near a disused mill].",
];
const RIVER_CHAT: &[&str] = &[
    "{S} rises in [a peat bog|a beech forest|a limestone cave] and [soon turns south|gathers {few} brooks|disappears underground for a stretch].",
    "Timber was floated down the river until {year}.",
    "A dam built in {year} [supplies drinking water|drives a small power station].",
    "Floods in {year} [carried away two bridges|reached the church steps at {town}].",
    "Its valley is [planted with vines|a bird reserve|popular with walkers].",
    "The water is [cold even in summer|brown from the moors|hard and rich in lime].",
    "A ferry [still crosses|crossed] at {town}[| until {year}].",
    "Old maps show [a different course|{few} islands that have vanished].",
    "Crayfish, [once common|now protected], are found in its upper course.",
    "The river freezes [about once in ten years|in most winters].",
    "A painter from {town} [drew|painted] the river [in all seasons|more than a hundred times].",
    "Gravel was dug from its bed until {year}.",
    "The upper valley was settled in {old_year} by [charcoal burners|shepherds|monks].",
    "A towpath, [now a cycle track|overgrown today], follows the left bank.",
    "Barges reached {town} until {year}.",
    "There are {few} bridges, the oldest of them [built of stone|from {old_year}].",
];

/// All that could be said about a town.
pub(super) fn write_town(writer: &mut Writer<'_>, id: Id) {
    let town = &writer.world.towns[id];
    let size = match town.population {
        ..5_000 => "village",
        5_000..70_000 => "town",
        _ => "city",
    };
    let short = format!("the {size}");
    set_slots(writer, town.country, town.name.clone(), short);
    writer.slot("size", size);
    writer.slot("population", thousands(town.population));
    writer.lead(TOWN_LEADS);
    writer.say(10, &[Country], TOWN_COUNTRY);
    writer.say(12, &[Population], TOWN_POPULATION);
    writer.chat(40, 5, TOWN_CHAT);
}

/// All that could be said about a river.
pub(super) fn write_river(writer: &mut Writer<'_>, id: Id) {
    let river = &writer.world.rivers[id];
    let title = writer.world.title(Thing::River(id));
    set_slots(
        writer,
        river.country,
        format!("the {title}"),
        format!("the {}", river.name),
    );
    writer.slot("N", title);
    writer.slot("length", river.kilometres.to_string());
    if let Some(mouth) = river.mouth {
        writer.slot("mouth", writer.world.title(Thing::River(mouth)));
    }
    writer.lead(RIVER_LEADS);
    writer.say(10, &[Country], RIVER_COUNTRY);
    writer.say(12, &[Length], RIVER_LENGTH);
    if river.mouth.is_some() {
        writer.say(14, &[Mouth], RIVER_MOUTH);
    }
    writer.chat(40, 5, RIVER_CHAT);
}

fn set_slots(writer: &mut Writer<'_>, country: Id, full: String, short: String) {
    let world = writer.world;
    writer.introduce(Mentions {
        full,
        short,
        pronoun: "it",
        object: "it",
        possessive: "its",
    });
    let mut others = world.towns_of(country);
    others.retain(|&town| Thing::Town(town) != writer.thing);
    writer.roll("town", Roll::Town(others));
    writer.roll(
        "region",
        Roll::Word(&["north", "south", "east", "west", "north-east", "south-west"]),
    );
    writer.roll("year", Roll::Number(1860, 1975));
    writer.roll("old_year", Roll::Number(1310, 1790));
    writer.roll("few", Roll::Word(FEW));
    writer.slot("country", world.countries[country].name.clone());
}
