//! JSON for people who compare plans: a layer per line.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Indented JSON in which a list inside a list stays on one line, with a newline at the end.
///
/// Errors: serde's.
pub(super) fn readable_json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    let layout = RowPerLine {
        pretty: PrettyFormatter::new(),
        lists: 0,
    };
    value.serialize(&mut Serializer::with_formatter(&mut bytes, layout))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// serde_json's indentation, except inside lists of lists.
struct RowPerLine<'a> {
    pretty: PrettyFormatter<'a>,
    /// Lists that are open.
    lists: usize,
}

impl RowPerLine<'_> {
    fn in_row(&self) -> bool {
        self.lists > 1
    }
}

impl Formatter for RowPerLine<'_> {
    fn begin_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.lists += 1;
        if self.in_row() {
            return w.write_all(b"[");
        }
        self.pretty.begin_array(w)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        let in_row = self.in_row();
        self.lists -= 1;
        if in_row {
            return w.write_all(b"]");
        }
        self.pretty.end_array(w)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if self.in_row() {
            return w.write_all(if first { b"" } else { b", " });
        }
        self.pretty.begin_array_value(w, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        if self.in_row() {
            return Ok(());
        }
        self.pretty.end_array_value(w)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.pretty.begin_object(w)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.pretty.end_object(w)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.pretty.begin_object_key(w, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(w)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_stay_on_a_line() {
        let text = readable_json(&json!({"a": [[1, 2], [], [3]], "b": {"c": [1, "x"]}, "d": []}));
        let want = r#"{
  "a": [
    [1, 2],
    [],
    [3]
  ],
  "b": {
    "c": [
      1,
      "x"
    ]
  },
  "d": []
}
"#;
        assert_eq!(text.unwrap(), want);
    }
}
