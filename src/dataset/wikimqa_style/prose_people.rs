//! Prose about people.

use super::passage::{Mentions, Roll, Writer};
use super::things::founder_trade;
use super::world::Relation::{
    self, Birthplace, Born, Country, DeathPlace, Died, Father, Maker, Mother, School, Year,
};
use super::world::{Fact, HouseKind, Id, Thing, WorkKind};
use crate::dataset::text::FEW;

const LEADS_DEAD: &[(&[Relation], &str)] = &[
    (
        &[Born, Died, Country],
        "{N} ({born} – {died}) was a~ {nat} {trade}.",
    ),
    (
        &[Born, Died, Country],
        "{N} ({born} – {died}) was a~ {nat} {trade} [whose work was little known abroad|of the older school|with a wide circle of pupils].",
    ),
    (
        &[Country],
        "{N} was a~ {nat} {trade}, [remembered for a dry sense of humour|known to friends as a tireless letter writer|long regarded as an outsider|admired for patience rather than brilliance].",
    ),
    (
        &[Country],
        "{N} was a~ {nat} {trade} and [amateur astronomer|collector of clocks|keen hiker|occasional lecturer|part-time translator].",
    ),
    (&[Born, Country], "{N} (born {born}) was a~ {nat} {trade}."),
    (
        &[Birthplace, Country],
        "{N}, born in {birthplace}, was a~ {nat} {trade}.",
    ),
    (
        &[Born, Birthplace, Country],
        "Born in {birthplace} on {born}, {N} was a~ {nat} {trade}.",
    ),
    (&[Died, Country], "{N} (died {died}) was a~ {nat} {trade}."),
];
const LEADS_ALIVE: &[(&[Relation], &str)] = &[
    (&[Born, Country], "{N} (born {born}) is a~ {nat} {trade}."),
    (
        &[Born, Country],
        "{N} (born {born}) is a~ {nat} {trade} [who rarely gives interviews|now living in retirement|and a member of the national academy].",
    ),
    (
        &[Country],
        "{N} is a~ {nat} {trade}, [known for long silences in interviews|admired for careful preparation|whose early work has been rediscovered].",
    ),
    (
        &[Country],
        "{N} is a~ {nat} {trade} and [amateur botanist|collector of maps|keen sailor|occasional lecturer].",
    ),
    (
        &[Birthplace, Country],
        "{N}, a native of {birthplace}, is a~ {nat} {trade}.",
    ),
];
const BORN: &[&str] = &[
    "{S} was born on {born}.",
    "{S} was born on {born}, [in the middle of a hard winter|during a summer drought|in a house beside the railway|a few weeks too early].",
    "Parish records show that {S} was born on {born}.",
];
const BIRTHPLACE: &[&str] = &[
    "{S} was born in {birthplace}.",
    "{S} was born in {birthplace}, [above a bakery|in a street that no longer exists|where the family kept an inn|close to the market square].",
    "{P} birthplace was {birthplace}.",
    "A plaque in {birthplace} marks the house where {S} was born.",
];
const BORN_AT: &[&str] = &[
    "{S} was born in {birthplace} on {born}.",
    "{S} was born on {born} in {birthplace}.",
    "{S} was born in {birthplace}, [as the records show|according to the town register], on {born}.",
];
const PARENTS: &[&str] = &[
    "{S} was the {child} of {father}, a~ {father_trade}, and {mother}, a~ {mother_trade}.",
    "{P} parents were {father} and {mother}.",
    "{P} father was the {father_trade} {father} and {P} mother the {mother_trade} {mother}.",
    "{S} was a~ {child} of the {father_trade} {father} and of {mother}.",
];
const FATHER: &[&str] = &[
    "{S} was the {child} of the {father_trade} {father}.",
    "{P} father, {father}, [worked as|was|earned a modest living as] a~ {father_trade}.",
    "{S} learned to read from {P} father, the {father_trade} {father}.",
];
const MOTHER: &[&str] = &[
    "{P} mother was {mother}, a~ {mother_trade}.",
    "{P} mother, {mother}, [worked as|was] a~ {mother_trade} [of some reputation|all her life|before she turned to teaching].",
    "{S} owed a love of books to {P} mother, the {mother_trade} {mother}.",
];
const SIBLING: &[&str] = &[
    "{P} {sibling_word} {sibling} became a~ {sibling_trade}.",
    "The {sibling_trade} {sibling} was {P} {sibling_word}.",
    "{S} had a~ {sibling_word}, {sibling}, who worked as a~ {sibling_trade}.",
    "{S} [stayed close to|wrote every week to|shared a flat for some years with] {P} {sibling_word}, the {sibling_trade} {sibling}.",
];
const SCHOOLING: &[&str] = &[
    "{S} [studied at|was educated at|attended] {school}.",
    "{S} attended {school}, [where mathematics was the favourite subject|as a day pupil|thanks to a small grant|and kept in touch with the teachers there].",
    "At {school} {S} [edited the student magazine|won a prize for drawing|sang in the choir|learned three languages].",
];
const SPOUSE: &[&str] = &[
    "In {wedding} {S} married {spouse}, a~ {spouse_trade}.",
    "{S} married the {spouse_trade} {spouse} in {wedding}.",
    "{S} was married to the {spouse_trade} {spouse} [from {wedding} on|for many years].",
    "{P} marriage to {spouse}, a~ {spouse_trade}, [took place|was celebrated] in {wedding}.",
];
const CHILD: &[&str] = &[
    "{P} {offspring} {offspring_name} became a~ {offspring_trade}.",
    "The {offspring_trade} {offspring_name} was {P} {offspring}.",
    "{S} had a~ {offspring}, {offspring_name}, later a~ {offspring_trade}.",
];
const DEATH: &[&str] = &[
    "{S} died in {death_place} on {died}.",
    "{S} died on {died} in {death_place}[, after a short illness|, at the age of {age}|].",
    "{S} spent the last years in {death_place} and died there on {died}.",
];
const DEATH_PLACE: &[&str] = &[
    "{S} died in {death_place}.",
    "{S} died in {death_place} [after a short illness|at the age of {age}|while visiting friends].",
    "Having moved to {death_place} [for the sea air|to be near family|on retiring], {S} died there at the age of {age}.",
];
const FILM: &[&str] = &[
    "{S} directed the {genre} film {work}, released in {work_year}.",
    "{P} film {work} [came out|was first shown] in {work_year}.",
    "In {work_year} {S} made {work}, a~ {genre} film.",
];
const BOOK: &[&str] = &[
    "{S} wrote {work}, which [was published|came out] in {work_year}.",
    "{P} {genre} {work} appeared in {work_year}.",
    "In {work_year} {S} published {work}, a~ {genre}.",
];
const SONG: &[&str] = &[
    "{S} recorded {work} in {work_year}.",
    "{P} recording of {work} [sold well|was played often on the radio] in {work_year}.",
    "In {work_year} {S} released the {genre} {work}.",
];
const FOUNDED: &[&str] = &[
    "{S} founded {house} in {house_year}.",
    "In {house_year} {S} set up {house}.",
    "{S} is [best known|remembered] as the founder of {house}.",
];
const YOUTH: &[&str] = &[
    "{S} spent part of {P} childhood with [an aunt|a grandmother|distant cousins] in {town}.",
    "As a child {S} [suffered from weak eyesight|kept rabbits|played the accordion|was often ill and read a great deal].",
    "{S} [first worked as|earned {P} first wages as] [a postal clerk|a bookkeeper|a proof-reader|a lighthouse assistant|a telegraph operator].",
    "The family moved to {town} in {early}, [when the mill closed|after a fire|looking for work].",
    "{S} [did military service|spent two years] in {town}, [mostly in the stores|which left few traces in the later work|and disliked every day of it].",
    "An early interest in [clock-making|insects|folk tales|weather records|old coins] [stayed with {O} for life|never quite left the household].",
    "A scholarship of {few} hundred crowns [paid for|made possible] a first journey abroad in {early}.",
    "{S} spoke [three|four|five] languages, [two of them badly|among them the dialect of {town}|though none without an accent].",
    "Until {early} {S} lived in {town}, [in a rented attic|with an uncle|where rents were low].",
];
const CAREER: &[&str] = &[
    "From {mid} to {late} {S} [taught evening classes|kept an office|rented a workshop|held a minor post] in {town}.",
    "A journey to {town} in {mid} [changed {P} plans|led to many later friendships|was paid for by a patron|is described in {P} diary].",
    "{S} received the [silver medal|honorary prize|gold pin] of the [Guild of Arts|Chamber of Trades|Society of Letters] in {mid}.",
    "Critics [praised|mocked|hardly noticed] {P} [quiet manner|sense of order|stubbornness] [at first|in those years].",
    "A dispute with [the city council|a former partner|the tax office] kept {O} busy from {mid} until {late}.",
    "In {mid} {S} [gave a series of lectures|opened a small exhibition|published a pamphlet] in {town}.",
    "{S} belonged to a circle of [friends|colleagues|rivals] who met [on Thursdays|every second Sunday|once a month] in a café in {town}.",
    "{S} turned down a post in {town} in {mid}, [saying that the winters were too long|for reasons never explained|to the surprise of colleagues].",
    "Money was short, and in {mid} {S} sold [a piano|the family silver|a collection of prints] to pay the rent.",
    "{P} notebooks from {mid}, [{few} in number|bound in green cloth|written in pencil], are kept in {town}.",
    "Illness [forced a pause of {few} months|interrupted work] in {mid}.",
    "{S} served on the jury of the {town} [festival|fair|exhibition] in {late}.",
    "A trip to [the coast|the mountains|the salt lakes] in {mid} ended [in a snowstorm|with a broken leg|a week early].",
    "{S} [shared|rented] a studio in {town} with [two friends|a cousin|a printer] until {late}.",
    "A portrait painted in {mid} shows {O} [with a small dog|at an open window|in a borrowed coat].",
    "{S} [contributed to|edited] a monthly magazine that [lasted {few} years|ran into debt|was printed in {town}].",
    "In {late} a fire destroyed [half of the library|several unfinished works|the family home] in {town}.",
    "{S} corresponded with [colleagues abroad|a retired admiral|a schoolmaster in {town}] for {few} years.",
    "An invitation to {town} came in {mid}, but {S} [arrived too late|was not paid|stayed only a week].",
    "{S} [took part in|helped to organise] the {town} congress of {mid}.",
    "The tax rolls of {town} list {O} as [a tenant|the owner of a garden|absent] in {mid}.",
    "For {few} years {S} [led a choir|ran a reading club|taught drawing] in {town}.",
    "Colleagues described {O} as [punctual|generous|hard to please|fond of long walks] and [sparing with praise|quick to laugh|careful with money].",
];
const CAREER_FILM: &[&str] = &[
    "{S} had begun as [an editor|a camera assistant|a set painter] and always preferred [natural light|long takes|untrained actors].",
    "{S} shot most outdoor scenes near {town} and [rarely used music|cut the films at home|worked with small crews].",
    "A planned film about [a lighthouse keeper|a strike|the building of a canal] was abandoned in {late}.",
    "{S} trained in the theatre in {town} before turning to film.",
];
const CAREER_BOOK: &[&str] = &[
    "{S} wrote [before breakfast|standing at a desk|on trains] and [revised endlessly|burned many drafts|never used a typewriter].",
    "{P} books are often set in [small ports|boarding houses|mountain villages].",
    "A collection of short stories followed in {late} but [sold poorly|found few readers].",
    "{P} essays on [gardens|bridges|village schools] were first printed in a newspaper in {town}.",
];
const CAREER_SONG: &[&str] = &[
    "{S} was heard [on the radio|in dance halls|on excursion steamers] from {mid} on.",
    "{P} voice, [low and a little hoarse|light and clear], was said to [fill a hall without a microphone|suit slow songs best].",
    "A tour of {few} towns in {late} ended in {town}.",
    "{S} took singing lessons in {town} and [played the guitar|wrote some of the words] as well.",
];
const CAREER_FOUNDER: &[&str] = &[
    "{S} introduced [a pension fund|a canteen|shorter hours on Saturdays] for the staff.",
    "{S} sat on the town council of {town} for {few} years.",
    "Visitors remembered {O} for [inspecting everything in person|a habit of answering letters the same day].",
];
const LATER: &[&str] = &[
    "In later years {S} [grew apples|kept bees|restored old boats|collected folk songs] outside {town}.",
    "A street in {town} [is named after|bears the name of] {N}.",
    "{P} [letters|papers|photographs] were [given to the archive|sold at auction|deposited in the museum] in {town}.",
    "{S} [refused|declined] an honorary title in {late}.",
    "A small exhibition in {town} recalled {P} work in {late}.",
    "{P} [coin collection|herbarium|library] was left to the town of {town}.",
    "A memorial [bench|stone|window] in {town} was [paid for by friends|unveiled in heavy rain].",
    "{S} wrote a short memoir in {late}, [which ends in mid-sentence|never printed|praised for its humour].",
    "From {late} on {S} [walked with a stick|lived on the ground floor|kept to a strict diet].",
    "Old friends met at {P} house in {town} [every autumn|until the roof gave way].",
    "The town of {town} offered {O} [a pension|free lodgings|honorary citizenship] in {late}.",
    "{S} was [an enthusiastic|a passable|a poor] chess player and [hated being photographed|never learned to drive|always travelled by train].",
    "An [incomplete|illustrated|unreliable] biography appeared in {late}.",
    "{S} [gave up|returned to] public life in {late}.",
];

/// All that could be said about a person.
pub(super) fn write(writer: &mut Writer<'_>, id: Id) {
    set_slots(writer, id);
    let dead = writer.world.people[id].died.is_some();
    writer.lead(if dead { LEADS_DEAD } else { LEADS_ALIVE });
    write_birth(writer);
    write_family(writer, id);
    if let Some(school) = writer.world.people[id].school {
        writer.slot("school", writer.world.houses[school].name.clone());
        writer.say(26, &[School], SCHOOLING);
    }
    write_works(writer, id);
    let career = match writer.world.people[id].trade {
        "film director" => CAREER_FILM,
        "novelist" => CAREER_BOOK,
        "singer" => CAREER_SONG,
        trade if trade == founder_trade(HouseKind::Firm) => CAREER_FOUNDER,
        _ => CAREER,
    };
    writer.chat(24, 1, YOUTH);
    writer.chat(44, 1, career);
    writer.chat(46, 4, CAREER);
    writer.chat(66, 2, LATER);
    if dead {
        writer.say(80, &[Died, DeathPlace], DEATH);
        writer.say(81, &[DeathPlace], DEATH_PLACE);
    }
}

fn set_slots(writer: &mut Writer<'_>, id: Id) {
    let world = writer.world;
    let person = &world.people[id];
    let town = |id: Id| world.towns[id].name.clone();
    writer.introduce(Mentions {
        full: world.name(id),
        short: person.family.clone(),
        pronoun: if person.female { "she" } else { "he" },
        object: if person.female { "her" } else { "him" },
        possessive: if person.female { "her" } else { "his" },
    });
    writer.slot("nat", world.countries[person.country].adjective.clone());
    writer.slot("trade", person.trade);
    writer.slot("born", person.born.to_string());
    writer.slot("birthplace", town(person.birthplace));
    writer.slot("child", if person.female { "daughter" } else { "son" });
    if let Some((died, place)) = person.died {
        writer.slot("died", died.to_string());
        writer.slot("death_place", town(place));
        writer.slot("age", person.born.years_until(died).to_string());
    }
    let last_year = person
        .died
        .map_or(2013, |(died, _)| died.year - 1)
        .min(person.born.year + 75);
    let at_age = |age: i32| person.born.year + age;
    writer.roll("early", Roll::Number(at_age(17), at_age(24)));
    writer.roll("mid", Roll::Number(at_age(27), at_age(39)));
    writer.roll("late", Roll::Number(at_age(40), last_year));
    writer.roll("few", Roll::Word(FEW));
    writer.roll("town", Roll::Town(world.towns_of(person.country)));
}

fn write_birth(writer: &mut Writer<'_>) {
    if writer.has_said(Born) {
        writer.say(11, &[Birthplace], BIRTHPLACE);
    } else if writer.has_said(Birthplace) {
        writer.say(10, &[Born], BORN);
    } else if writer.must_say(Birthplace) || writer.dice.chance(75) {
        writer.say(10, &[Born, Birthplace], BORN_AT);
    } else {
        writer.say(10, &[Born], BORN);
    }
}

fn write_family(writer: &mut Writer<'_>, id: Id) {
    let world = writer.world;
    let person = &world.people[id];
    let trade = |id: Id| world.people[id].trade;
    if let Some((father, mother)) = person.parents {
        writer.slot("father", world.name(father));
        writer.slot("mother", world.name(mother));
        writer.slot("father_trade", trade(father));
        writer.slot("mother_trade", trade(mother));
        if writer.dice.chance(55) {
            writer.say(12, &[Father, Mother], PARENTS);
        }
        writer.say(12, &[Father], FATHER);
        writer.say(13, &[Mother], MOTHER);
    }
    for sibling in world.siblings(id) {
        let other = &world.people[sibling];
        let age = if other.born < person.born {
            "older"
        } else {
            "younger"
        };
        let word = if other.female { "sister" } else { "brother" };
        writer.slot("sibling", world.name(sibling));
        writer.slot("sibling_trade", other.trade);
        writer.slot("sibling_word", format!("{age} {word}"));
        writer.say_facts(16, vec![world.kinship(id, sibling)], SIBLING);
    }
    if let Some((spouse, wedding)) = person.spouse {
        writer.slot("spouse", world.name(spouse));
        writer.slot("spouse_trade", trade(spouse));
        writer.slot("wedding", wedding.to_string());
        writer.say_facts(50, vec![world.marriage(id, spouse)], SPOUSE);
    }
    for child in world.children(id) {
        let what = if person.female { Mother } else { Father };
        let other = &world.people[child];
        writer.slot("offspring", if other.female { "daughter" } else { "son" });
        writer.slot("offspring_name", world.name(child));
        writer.slot("offspring_trade", other.trade);
        writer.say_facts(
            54,
            vec![Fact {
                of: Thing::Person(child),
                what,
            }],
            CHILD,
        );
    }
}

fn write_works(writer: &mut Writer<'_>, id: Id) {
    let world = writer.world;
    for (number, work) in world
        .works
        .iter()
        .enumerate()
        .filter(|(_, work)| work.maker == id)
    {
        writer.slot("work", super::prose_works::in_text(work));
        writer.slot("genre", work.genre);
        writer.slot("work_year", work.year.to_string());
        let patterns = match work.kind {
            WorkKind::Film => FILM,
            WorkKind::Book => BOOK,
            WorkKind::Song => SONG,
        };
        let of = Thing::Work(number);
        let facts = [Maker, Year].map(|what| Fact { of, what }).to_vec();
        writer.say_facts(40, facts, patterns);
    }
    for (number, house) in world
        .houses
        .iter()
        .enumerate()
        .filter(|(_, h)| h.founder == id)
    {
        writer.slot("house", house.name.clone());
        writer.slot("house_year", house.year.to_string());
        let of = Thing::House(number);
        let facts = [Relation::Founder, Year]
            .map(|what| Fact { of, what })
            .to_vec();
        writer.say_facts(40, facts, FOUNDED);
    }
}
