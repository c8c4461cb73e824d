//! JSON for people who compare plans: a layer per line.

use serde::Serialize;

/// Indented JSON in which a list inside a list stays on one line, with a newline at the end.
///
/// Errors: serde's.
pub(super) fn readable_json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = String::new();
    // Lists that are open in a row: the first alone has no name before it, so its bracket has a line of its own.
    let mut open = 0usize;
    for line in serde_json::to_string_pretty(value)?.lines() {
        let part = line.trim_start();
        let inside = open > 0;
        if part == "[" || inside && part.ends_with('[') {
            open += 1;
        } else if inside && part.starts_with(']') {
            open -= 1;
        }
        text.push_str(if inside { part } else { line });
        if open == 0 {
            text.push('\n');
        } else if part.ends_with(',') {
            text.push(' ');
        }
    }
    Ok(text)
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
