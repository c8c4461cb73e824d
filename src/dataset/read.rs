//! Reading data sets: built-in names, JSONL and Parquet files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::built_in::BUILT_IN;
use super::kind::Kind;
use super::record::Record;
use crate::error::{Error, Result};
use crate::{files, table};

/// Prompts of one format, and where they came from.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name as a figure shows it: the built-in name, or the file's name without its ending.
    pub name: String,
    /// The file; `None` for a built-in data set.
    pub path: Option<PathBuf>,
    /// SHA-256 of the file's bytes.
    pub sha256: String,
    /// The format all records share.
    pub kind: Kind,
    /// The prompts, at least one.
    pub records: Vec<Record>,
}

impl Dataset {
    /// Opens a built-in data set by name, or a JSONL or Parquet file by path.
    ///
    /// Errors: [`Error::UnknownName`] for what is neither, [`Error::Io`], and [`Error::Format`] with
    /// the line for a file that breaks its format.
    pub fn open(spec: &str) -> Result<Self> {
        if let Some(known) = BUILT_IN.iter().find(|known| known.name == spec) {
            return read_jsonl(Path::new(known.name), known.bytes).map(|dataset| Self {
                path: None,
                ..dataset
            });
        }
        let path = Path::new(spec);
        if path.is_dir() {
            return Err(Error::format(
                path,
                "is a folder; name a JSONL or Parquet file in it",
            ));
        }
        if !path.exists() {
            return Err(Error::UnknownName {
                kind: "data set",
                name: spec.to_owned(),
                known: format!(
                    "{}, or a path to a JSONL or Parquet file (there is no file of this name)",
                    BUILT_IN
                        .iter()
                        .map(|known| known.name)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            });
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let named_parquet = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
        if named_parquet || bytes.starts_with(b"PAR1") {
            read_parquet(path, &bytes)
        } else {
            read_jsonl(path, &bytes)
        }
    }
}

/// Where a record stands in its file.
#[derive(Clone, Copy)]
enum Place {
    Line(usize),
    Row(usize),
}

impl Place {
    fn error(self, path: &Path, problem: impl AsRef<str>) -> Error {
        match self {
            Self::Line(line) => Error::format_at(path, line, problem.as_ref()),
            Self::Row(row) => Error::format(path, format!("row {row}: {}", problem.as_ref())),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Line(line) => format!("line {line}"),
            Self::Row(row) => format!("row {row}"),
        }
    }
}

/// Reads JSONL: one object a line, blank lines and a byte order mark aside.
///
/// `path` names the data set and stands in errors; the bytes are what is read.
///
/// Errors: [`Error::Format`] with the 1-based line.
pub fn read_jsonl(path: &Path, bytes: &[u8]) -> Result<Dataset> {
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut rows = Vec::new();
    for (line, content) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let content = content.trim_ascii();
        if !content.is_empty() {
            let place = Place::Line(line);
            rows.push((
                place,
                parse_line(content).map_err(|problem| place.error(path, problem))?,
            ));
        }
    }
    collect(path, bytes, rows)
}

/// Reads Parquet: one record a row; `bytes` are the file's, for its checksum.
///
/// Errors: [`Error::Table`], [`Error::Unsupported`] for columns of other types than text, numbers
/// and lists, [`Error::Format`] with the 1-based row.
pub fn read_parquet(path: &Path, bytes: &[u8]) -> Result<Dataset> {
    let rows = table::read_json_rows(path)?;
    collect(path, bytes, (1..).map(Place::Row).zip(rows))
}

fn parse_line(content: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(content).map_err(|e| {
        format!(
            "is not UTF-8 text (byte {} of the line)",
            e.valid_up_to() + 1
        )
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(Value::Array(_)) => Err("is a list; write one JSON object a line".into()),
        Ok(_) => Err("is not a JSON object, and every line must be one".into()),
        Err(e) => {
            // serde_json counts lines within this one line, which would mislead.
            let reason = e.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            Err(format!("is not JSON: {reason} at column {}", e.column()))
        }
    }
}

fn collect(
    path: &Path,
    bytes: &[u8],
    rows: impl IntoIterator<Item = (Place, Map<String, Value>)>,
) -> Result<Dataset> {
    let mut first: Option<(Place, Kind)> = None;
    let mut records = Vec::new();
    for (place, columns) in rows {
        let record =
            Record::new(columns, records.len()).map_err(|problem| place.error(path, problem))?;
        let (first_place, kind) = *first.get_or_insert((place, record.kind));
        if record.kind != kind {
            return Err(place.error(
                path,
                format!(
                    "has the {} format, but {} has the {kind} format: keep one format a file",
                    record.kind,
                    first_place.name()
                ),
            ));
        }
        records.push(record);
    }
    let Some((_, kind)) = first else {
        return Err(Error::format(path, "holds no record"));
    };
    Ok(Dataset {
        name: path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        path: Some(path.to_owned()),
        sha256: files::sha256_hex(bytes),
        kind,
        records,
    })
}

/// Writes records as JSONL, one object a line.
///
/// Errors: [`Error::Io`]; an old file is then as it was.
pub fn write_jsonl(path: &Path, records: &[Map<String, Value>]) -> Result<()> {
    files::replace(path, |file| {
        records.iter().try_for_each(|record| {
            serde_json::to_writer(&mut *file, record)?;
            std::io::Write::write_all(file, b"\n")
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Dataset> {
        read_jsonl(Path::new("some/mill.jsonl"), text.as_bytes())
    }

    fn problem(bytes: &[u8]) -> String {
        read_jsonl(Path::new("mill.jsonl"), bytes)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn blank_lines_and_byte_order_mark_are_skipped() {
        let dataset = read("\u{feff}\n{\"prompt\": \"a\"}\r\n  \t\n{\"prompt\": \"b\"}").unwrap();
        assert_eq!(
            (dataset.name.as_str(), dataset.kind),
            ("mill", Kind::Prompt)
        );
        let ids: Vec<_> = dataset.records.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, ["0", "1"]);
    }

    #[test]
    fn checksum_is_of_the_bytes_as_they_are() {
        let dataset = read("{\"prompt\":\"a\"}\n").unwrap();
        assert_eq!(dataset.sha256, files::sha256_hex(b"{\"prompt\":\"a\"}\n"));
        assert_eq!(dataset.sha256.len(), 64);
        assert_eq!(
            files::sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn errors_carry_path_and_line() {
        let good = "{\"prompt\": \"a\"}\n";
        for (rest, part) in [
            (
                "{\"prompt\": }\n",
                "mill.jsonl, line 3: is not JSON: expected value at column 12",
            ),
            ("[1]\n", "mill.jsonl, line 3: is a list"),
            ("7\n", "mill.jsonl, line 3: is not a JSON object"),
            (
                "{\"text\": \"a\"}\n",
                "mill.jsonl, line 3: columns fit no known format; found: text;",
            ),
            (
                "{\"prompt\": null}\n",
                "mill.jsonl, line 3: column 'prompt' must be text, but is null",
            ),
            (
                "{\"ids\": [1]}\n",
                "line 3: has the token ids format, but line 1 has the prompt format",
            ),
        ] {
            let problem = problem(format!("{good}\n{rest}").as_bytes());
            assert!(problem.contains(part), "{problem}");
        }
        assert!(problem(b"{\"prompt\": \"\xff\"}").contains("line 1: is not UTF-8 text (byte 13"));
        assert_eq!(problem(b""), "mill.jsonl: holds no record");
        assert_eq!(problem(b"\n \n"), "mill.jsonl: holds no record");
        let deep = "[".repeat(100_000);
        assert!(problem(deep.as_bytes()).contains("line 1: is not JSON: recursion limit"));
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let problem = Dataset::open("wikimqa-style-3k").unwrap_err().to_string();
        assert!(
            problem.contains("wikimqa-style-2k, wikimqa-style-4k, or a path"),
            "{problem}"
        );
        let folder = tempfile::tempdir().unwrap();
        let problem = Dataset::open(&folder.path().to_string_lossy())
            .unwrap_err()
            .to_string();
        assert!(problem.contains("is a folder"), "{problem}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let rows: Vec<Map<String, Value>> = ["Grüße\nan alle", "b"]
            .iter()
            .map(|text| Map::from_iter([("prompt".to_owned(), Value::from(*text))]))
            .collect();
        write_jsonl(&path, &rows).unwrap();
        let dataset = Dataset::open(&path.to_string_lossy()).unwrap();
        assert_eq!(dataset.path.as_deref(), Some(path.as_path()));
        assert_eq!(
            dataset
                .records
                .into_iter()
                .map(|r| r.columns)
                .collect::<Vec<_>>(),
            rows
        );
    }

    /// Lines that are valid, one of each format.
    const LINES: [&str; 6] = [
        r#"{"input": "Who?", "context": "née Ana", "answers": "['a']", "evidence": [[0, 3]]}"#,
        r#"{"input": "12", "outputs": ["12"], "index": 3}"#,
        r#"{"prompt": "line", "expected_number": 31}"#,
        r#"{"input": "Rain.", "question": "Where?", "target": "out"}"#,
        r#"{"prompt": "Hello \ud83d\ude00"}"#,
        r#"{"ids": [1, 2, 3]}"#,
    ];

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_jsonl(Path::new("any"), &bytes);
        }

        #[test]
        fn changed_lines_are_read_without_panic(
            line in 0..LINES.len(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = format!("{}\n{}\n", LINES[line], LINES[line]).into_bytes();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let _ = read_jsonl(Path::new("any"), &bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = read_jsonl(Path::new("any"), &bytes);
        }
    }

    #[test]
    fn one_line_of_each_format_is_valid() {
        for line in LINES {
            assert_eq!(read(line).unwrap().records.len(), 1, "{line}");
        }
    }
}
