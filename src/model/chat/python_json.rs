//! The `tojson` filter as transformers defines it: Python's `json.dumps` with characters left as they are.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Values nested deeper than this are refused.
const DEPTH: usize = 100;

/// `value|tojson(indent=...)`.
///
/// The engine's own filter escapes for HTML, which would put `\u0027` into prompts.
pub(super) fn filter(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for compatibility: both describe what is done anyway.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut writer = Writer {
        out: String::new(),
        indent: indent.map(|n| n.min(16)),
        state,
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

struct Writer<'a, 's> {
    out: String,
    indent: Option<usize>,
    state: &'a State<'s, 's>,
}

impl Writer<'_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                "tojson: nested too deeply",
            ));
        }
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::Map => {
                let mut is_first = true;
                self.out.push('{');
                for key in value.try_iter()? {
                    self.begin_item(&mut is_first, depth + 1);
                    self.text(&key.to_string())?;
                    self.out.push_str(": ");
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.end(is_first, depth, '}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let mut is_first = true;
                self.out.push('[');
                for item in value.try_iter()? {
                    self.begin_item(&mut is_first, depth + 1);
                    self.value(&item, depth + 1)?;
                }
                self.end(is_first, depth, ']');
            }
            _ => match value.as_str() {
                Some(text) => self.text(text)?,
                None => self.text(&value.to_string())?,
            },
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        self.state
            .consume_fuel(u64::try_from(text.len() / 64).unwrap_or(u64::MAX))?;
        let quoted = serde_json::to_string(text)
            .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
        self.out.push_str(&quoted);
        Ok(())
    }

    fn begin_item(&mut self, is_first: &mut bool, depth: usize) {
        match (self.indent, std::mem::replace(is_first, false)) {
            (None, true) => {}
            (None, false) => self.out.push_str(", "),
            (Some(_), first) => {
                self.out.push_str(if first { "" } else { "," });
                self.line(depth);
            }
        }
    }

    fn end(&mut self, is_empty: bool, depth: usize, bracket: char) {
        if self.indent.is_some() && !is_empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        self.out.push('\n');
        self.out
            .push_str(&" ".repeat(self.indent.unwrap_or(0) * depth));
    }
}
