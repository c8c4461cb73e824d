//! Folders of runs: what is joined, what is left alone, what is not written.

use super::*;
use crate::table::Column;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Essay {
    window: usize,
}

impl RunSettings for Essay {
    const KIND: &'static RunKind = &KIND;
}

static KIND: RunKind = RunKind {
    noun: "essay",
    made_with: "kvprof essay",
    or_made_with: &[],
    drawn_with: "kvprof plot essay --essay",
    tables: &["words"],
    schema: 3,
    fields: "schema command window",
};

fn record(window: usize, command: &str) -> RunRecord<Essay> {
    let (model, data) = Default::default();
    RunRecord::new(command, model, data, Essay { window })
}

fn rows(value: u32) -> Table {
    let mut table = Table::default();
    table.push("value", Column::Count(vec![value]));
    table
}

#[test]
fn a_run_that_was_killed_at_its_first_write_begins_anew() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    fs::create_dir_all(folder.join(PARTS)).unwrap();
    let partial = folder.join(PARTS).join(".kvprof-x.partial");
    fs::write(&partial, "half").unwrap();
    RunFolder::prepare(&folder, record(8, "a"), 1, false).unwrap();
    assert!(!partial.exists());
    fs::remove_dir_all(folder.join(PARTS)).unwrap();
    fs::create_dir(folder.join(PARTS)).unwrap();
    fs::write(folder.join(PARTS).join("thesis.txt"), "mine").unwrap();
    assert!(RunFolder::prepare(&folder, record(8, "a"), 1, false).is_err());
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_being_written_has_one_writer() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    let prepare = |resume| RunFolder::prepare(&folder, record(8, "a"), 1, resume);
    let run = prepare(false).unwrap();
    let unfinished = folder.join(PARTS).join(".kvprof-x.partial");
    fs::write(&unfinished, "half").unwrap();
    let own = format!("is being written by process {}", std::process::id());
    for resume in [false, true] {
        let refused = prepare(resume).unwrap_err().to_string();
        assert!(refused.contains(&own), "{refused}");
    }
    assert!(
        unfinished.exists(),
        "what the other one writes is left to it"
    );
    drop(run);
    let run = prepare(true).unwrap();
    assert!(!unfinished.exists());
    run.write(0, &[rows(10)]).unwrap();
    run.finish().unwrap();
    // A finished run needs no writer.
    let (_one, _other) = (prepare(true).unwrap(), prepare(true).unwrap());
    assert!(!folder.join(PARTS).exists());
}

#[test]
fn parts_become_tables_whatever_was_written_first() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    let run = RunFolder::prepare(&folder, record(8, "a"), 2, false).unwrap();
    run.write(1, &[rows(11)]).unwrap();
    assert!(run.has(1) && !run.has(0) && run.finish().is_err());
    assert!(run.write(0, &[]).is_err(), "no table at all");
    let unfinished = RunRecord::<Essay>::read(&folder).unwrap_err().to_string();
    assert!(
        unfinished.contains("unfinished essay") && unfinished.contains("--resume"),
        "{unfinished}"
    );
    drop(run);
    let run = RunFolder::prepare(&folder, record(8, "b"), 2, true).unwrap();
    run.write(0, &[rows(10)]).unwrap();
    run.finish().unwrap();
    let joined = Table::read(&folder.join("words.parquet")).unwrap();
    assert_eq!(joined.counts("value").unwrap(), [10, 11]);
    assert_eq!(
        RunRecord::<Essay>::read(&folder).unwrap().settings.window,
        8
    );
    assert!(!folder.join(".parts").exists());
}

#[test]
fn folders_of_others_are_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    let prepare =
        |window: usize, resume: bool| RunFolder::prepare(&folder, record(window, "a"), 0, resume);
    prepare(8, false).unwrap();
    let said = |result: Result<RunFolder<Essay>>| result.unwrap_err().to_string();
    assert!(said(prepare(8, false)).contains("unfinished"));
    let other = said(prepare(9, true));
    assert!(
        other.contains("an essay with another window (8 there, 9"),
        "{other}"
    );
    prepare(8, true).unwrap().finish().unwrap();
    assert!(said(prepare(8, false)).contains("kvprof plot essay --essay"));
    fs::write(
        folder.join(META),
        r#"{"schema": 4, "command": "kvprof poem --rhyme"}"#,
    )
    .unwrap();
    let other = RunRecord::<Essay>::read(&folder).unwrap_err().to_string();
    assert!(other.contains("`kvprof poem` made it"), "{other}");
    fs::write(folder.join(META), r#"{"schema": 4}"#).unwrap();
    let layout = RunRecord::<Essay>::read(&folder).unwrap_err().to_string();
    assert!(layout.contains("layout version 4"), "{layout}");
    fs::write(folder.join(META), "{").unwrap();
    let foreign = said(prepare(8, true));
    assert!(
        foreign.contains("something else than kvprof essay"),
        "{foreign}"
    );
    let place = RunFolder::<Essay>::check_place(&folder).unwrap_err();
    assert_eq!(place.to_string(), foreign);
    let strange = temporary.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("thesis.txt"), "mine").unwrap();
    let refused = RunFolder::prepare(&strange, record(8, "a"), 0, true);
    assert!(said(refused).contains("not an essay"));
}

#[test]
fn no_part_is_written_once_the_weights_have_changed() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, weights) = (
        temporary.path().join("run"),
        temporary.path().join("weights"),
    );
    fs::write(&weights, "the right weights").unwrap();
    let reads = FilesInUse::now([weights.clone()]).unwrap();
    let run = RunFolder::prepare(&folder, record(8, "a"), 2, false).unwrap();
    let run = run.reading(reads);
    run.write(0, &[rows(10)]).unwrap();
    let other = temporary.path().join("other");
    fs::write(&other, "the wrong weights").unwrap();
    fs::rename(&other, &weights).unwrap();
    let said = run.write(1, &[rows(11)]).unwrap_err().to_string();
    assert!(
        said.starts_with(&format!("{}: changed while it was read", weights.display())),
        "{said}"
    );
    assert!(run.has(0) && !run.has(1));
    fs::remove_file(&weights).unwrap();
    let said = run.write(1, &[rows(11)]).unwrap_err().to_string();
    assert!(said.contains("no longer there"), "{said}");
    assert!(!run.has(1) && run.finish().is_err());
}
