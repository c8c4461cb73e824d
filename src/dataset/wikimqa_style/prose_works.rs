//! Prose about films, books and songs.

use super::passage::{Mentions, Roll, Writer};
use super::world::Relation::{self, Cast, Country, Maker, Producer, Year};
use super::world::{Id, Thing, Work, WorkKind};
use crate::dataset::text::FEW;

const FILM_LEADS: &[(&[Relation], &str)] = &[
    (
        &[Year, Country, Maker],
        "{N} is a~ {year} {nat} {genre} film directed by {maker}.",
    ),
    (
        &[Year, Country, Maker, Cast],
        "{N} is a~ {nat} {genre} film of {year}, directed by {maker} and starring {star} and {co_star}.",
    ),
    (&[Year, Maker], "{N} is a~ {year} {genre} film by {maker}."),
    (
        &[Year, Country, Maker],
        "Directed by {maker}, {N} is a~ {nat} {genre} film [first shown|released] in {year}.",
    ),
    (
        &[Country],
        "{N} is a~ {nat} {genre} film [shot in black and white|running to nearly three hours|long thought to be lost|loosely based on a stage play].",
    ),
    (&[Year], "{N} is a~ {genre} film from {year}."),
    (
        &[Country, Maker],
        "{N} is a~ {nat} {genre} film by the director {maker}.",
    ),
    (
        &[],
        "{N} is a~ {genre} film [set in a small harbour town|about a family quarrel|set during a single night|known for its slow opening scene].",
    ),
];
const FILM_MAKER: &[&str] = &[
    "{S} was directed by {maker}.",
    "{S} was directed by {maker}, [working from a short story|in a matter of weeks|from a script written years before].",
    "{S} was made under the direction of {maker}.",
    "{maker} directed {S} [on a small budget|between two larger projects].",
];
const FILM_YEAR: &[&str] = &[
    "{S} was released in {year}.",
    "{S} was first shown in {year}, [in a cinema in {town}|to a half-empty house|at a summer festival].",
    "{S} reached cinemas in [the spring|the autumn] of {year}.",
];
const FILM_COUNTRY: &[&str] = &[
    "{S} was made in {country}.",
    "{S} was produced in {country}, [with a local crew|mostly on location].",
];
const FILM_PRODUCER: &[&str] = &[
    "{S} was produced by {producer}.",
    "{producer} produced {S} [with money from a lottery|after two other studios had refused].",
    "{S} was made for {producer}, [which gave the crew a free hand|in its smallest studio].",
];
const FILM_CAST: &[&str] = &[
    "The leading roles are played by {star} and {co_star}.",
    "{star} plays the [innkeeper|customs officer|elder sister|travelling doctor], with {co_star} as [a rival|a stranger|the judge].",
    "The cast is led by {star}; {co_star} has a smaller part.",
];
const FILM_CHAT: &[&str] = &[
    "The story follows [a ferryman|a young teacher|two brothers|a retired policeman|a travelling salesman] who [finds a locked suitcase|returns after many years|is accused of a theft|must choose between two offers].",
    "Most of the outdoor scenes were shot near {town}, where [the weather caused delays|the whole village took part|some of the sets can still be seen].",
    "Reviewers [admired|disliked] the [photography|dialogue|long final scene] but [found the ending abrupt|thought the plot confused|praised the supporting actors].",
    "A restored print was shown in {town} {gap} years later.",
    "The music, for [a small string orchestra|solo piano|brass band], was recorded in [two nights|a church|one afternoon].",
    "The film ran for {few} weeks in {town} and [barely covered its costs|made a modest profit|was then withdrawn].",
    "Censors asked for {few} cuts, [all of which were refused|which shortened the second act].",
    "The original negative was [damaged in a fire|found in a cellar|kept by the cameraman].",
    "{S} won a prize for [editing|costumes|sound] at the {town} festival.",
    "Several scenes were rewritten [during shooting|when an actor fell ill|to please the censors].",
    "The sets [were built from old theatre scenery|filled a disused tram depot|took {few} weeks to build].",
    "A sequel was announced but [never made|given up for lack of money].",
    "The running time is {minutes} minutes.",
    "A scene on a frozen lake was [shot in summer|cut before the première|added at the last moment].",
    "The poster, [drawn by a schoolboy|printed in two colours], is sought after by collectors.",
    "Two of the actors [married after the shooting|had never seen a camera before|quarrelled in public].",
    "Newspapers in {town} reported [long queues|an empty house|applause in the middle of the film].",
    "The script went through {few} versions, [one of them in verse|none of which survives].",
    "The dialogue was recorded afterwards because of [a noisy sawmill|the wind|a faulty microphone].",
    "Television first showed it [late at night|in a shortened version|on a public holiday].",
    "The horses [came from a circus|were borrowed from the army].",
    "A novel based on the film [sold better than the tickets|was printed in {town}].",
    "A much-quoted scene shows [a wedding interrupted by rain|a chess game on a train|an empty ballroom].",
];
const BOOK_LEADS: &[(&[Relation], &str)] = &[
    (
        &[Year, Maker],
        "{N} is a~ {genre} by {maker}, [first published|published] in {year}.",
    ),
    (
        &[Year, Country, Maker],
        "{N} is a~ {year} {genre} by the {nat} writer {maker}.",
    ),
    (&[Year], "{N} is a~ {genre} [published in|of] {year}."),
    (&[Maker], "{N} is a~ {genre} written by {maker}."),
    (
        &[],
        "{N} is a~ {genre} [told in letters|in three parts|about the end of a friendship|set in a boarding house].",
    ),
];
const BOOK_MAKER: &[&str] = &[
    "{S} was written by {maker}.",
    "{S} was written by {maker} [in a single winter|over many years|during a long illness].",
    "{S} is the work of {maker}.",
];
const BOOK_YEAR: &[&str] = &[
    "{S} was published in {year}.",
    "{S} appeared in {year}, [in an edition of {few} hundred copies|after several refusals|in a cheap binding].",
    "{S} came out in {year}.",
];
const BOOK_PRODUCER: &[&str] = &[
    "The publisher was {producer}.",
    "{S} was published by {producer}.",
    "{S} was brought out by {producer}, [in two volumes|with drawings by a local artist].",
];
const BOOK_CHAT: &[&str] = &[
    "{S} tells of [a clerk who invents a town|three sisters and a disputed will|a doctor lost in the snow|a bridge that is never finished].",
    "The narrator, [a notary|an unnamed lodger|a ship's cook], [is not to be trusted|dies halfway through|speaks only in the last chapter].",
    "The manuscript, [heavily corrected|missing its last pages], is kept in {town}.",
    "A stage version was performed in {town} {gap} years later.",
    "Early reviews [complained about the length|compared it to a sermon|were warm].",
    "{S} has been translated into {few} languages.",
    "Much of the action takes place in {town}, [thinly disguised|though the town is never named].",
    "The first printing sold out within {few} weeks.",
    "A school edition [leaves out two chapters|is still in use|has notes on the dialect].",
    "The title refers to [a song|a family joke|an inn sign].",
    "A radio play was made of [the second part|the ending|two chapters].",
    "The dedication, [to a postman|in Latin|to nobody], [has puzzled readers|was left out later].",
    "A misprint on the first page [was never corrected|made the first edition valuable].",
    "The chapters are named after [the months|stations of a railway|dishes].",
    "The author's notes for it fill {few} boxes [in the archive of {town}|in a private collection].",
    "The most famous scene describes [a flood|a wedding without a groom|the sale of a piano].",
    "Schoolchildren in {town} [still learn a page of it by heart|once staged it in a barn].",
    "The book has {pages} pages in its first edition.",
];
const SONG_LEADS: &[(&[Relation], &str)] = &[
    (
        &[Year, Maker],
        "\"{N}\" is a~ {genre} recorded by {maker} in {year}.",
    ),
    (
        &[Year, Country, Maker],
        "\"{N}\" is a~ {year} {genre} by the {nat} singer {maker}.",
    ),
    (
        &[Year],
        "\"{N}\" is a~ {genre} [from|first released in] {year}.",
    ),
    (&[Maker], "\"{N}\" is a~ {genre} performed by {maker}."),
    (
        &[],
        "\"{N}\" is a~ {genre} [in a minor key|with a short refrain|often sung at weddings].",
    ),
];
const SONG_MAKER: &[&str] = &[
    "{S} was performed by {maker}.",
    "{S} was recorded by {maker} [in one take|with a small band|late at night].",
    "{S} was first sung by {maker}.",
];
const SONG_YEAR: &[&str] = &[
    "{S} was released in {year}.",
    "{S} came out in {year}, [on the reverse side of a dance record|in time for the summer].",
    "{S} was first heard in {year}.",
];
const SONG_PRODUCER: &[&str] = &[
    "{S} was released by {producer}.",
    "{S} appeared on {producer}.",
    "{producer} [at first refused|was quick] to release {S}.",
];
const SONG_CHAT: &[&str] = &[
    "The words describe [a night train|a farewell at a quay|a deserted square|a lost umbrella].",
    "{S} was recorded in {town} with [an accordion and two guitars|a studio orchestra|only a piano].",
    "{S} reached number {few} in the national charts.",
    "The melody is said to come from [an old harvest song|a hymn|a street seller's cry].",
    "A second version, [a little faster|with a choir], followed {gap} years later.",
    "The song was played at the opening of the {town} [fair|bridge|station].",
    "A radio station in {town} [banned it for a year|used it as its signal].",
    "The last verse was [written in a taxi|left out on the record].",
    "{S} lasts {few} minutes, which was unusual at the time.",
    "A choir in {town} [sang it every New Year's Eve|made an arrangement for four voices].",
    "The refrain is repeated {few} times, [each time a little slower|the last time without words].",
    "Soldiers [changed the words|whistled it on the march].",
    "A music box playing the tune was sold in {town}.",
    "The drummer [left before the end|kept time on a suitcase].",
    "The sheet music [sold well|carried a drawing of a swallow].",
];

/// A work's title as running text has it.
pub(super) fn in_text(work: &Work) -> String {
    match work.kind {
        WorkKind::Song => format!("\"{}\"", work.title),
        _ => work.title.clone(),
    }
}

/// All that could be said about a work.
pub(super) fn write(writer: &mut Writer<'_>, id: Id) {
    let work = &writer.world.works[id];
    set_slots(writer, work);
    match work.kind {
        WorkKind::Film => {
            writer.lead(FILM_LEADS);
            writer.say(10, &[Maker], FILM_MAKER);
            writer.say(12, &[Year], FILM_YEAR);
            writer.say(14, &[Country], FILM_COUNTRY);
            writer.say(20, &[Cast], FILM_CAST);
            writer.say(30, &[Producer], FILM_PRODUCER);
            writer.chat(40, 5, FILM_CHAT);
        }
        WorkKind::Book => {
            writer.lead(BOOK_LEADS);
            writer.say(10, &[Maker], BOOK_MAKER);
            writer.say(12, &[Year], BOOK_YEAR);
            writer.say(20, &[Producer], BOOK_PRODUCER);
            writer.chat(40, 5, BOOK_CHAT);
        }
        WorkKind::Song => {
            writer.lead(SONG_LEADS);
            writer.say(10, &[Maker], SONG_MAKER);
            writer.say(12, &[Year], SONG_YEAR);
            writer.say(20, &[Producer], SONG_PRODUCER);
            writer.chat(40, 4, SONG_CHAT);
        }
    }
}

fn set_slots(writer: &mut Writer<'_>, work: &Work) {
    let world = writer.world;
    writer.roll("town", Roll::Town(world.towns_of(work.country)));
    writer.roll(
        "gap",
        Roll::Word(&["eleven", "twenty", "twenty-five", "thirty", "forty"]),
    );
    writer.roll("few", Roll::Word(FEW));
    writer.roll("minutes", Roll::Number(71, 168));
    writer.roll("pages", Roll::Number(120, 780));
    let (short, full) = match work.kind {
        WorkKind::Film => ("the film", in_text(work)),
        WorkKind::Book => ("the book", in_text(work)),
        WorkKind::Song => ("the song", in_text(work)),
    };
    writer.introduce(Mentions {
        full,
        short: short.to_owned(),
        pronoun: "it",
        object: "it",
        possessive: "its",
    });
    for (name, value) in [
        ("N", work.title.clone()),
        ("genre", work.genre.to_owned()),
        ("year", work.year.to_string()),
        ("nat", world.countries[work.country].adjective.clone()),
        ("country", world.countries[work.country].name.clone()),
        ("maker", world.name(work.maker)),
        ("producer", world.title(Thing::House(work.producer))),
    ] {
        writer.slot(name, value);
    }
    if let [star, co_star] = work.cast[..] {
        writer.slot("star", world.name(star));
        writer.slot("co_star", world.name(co_star));
    }
}
