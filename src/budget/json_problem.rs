//! What is wrong with JSON, in words.

/// serde's reason with line and column, and what Python's writer is known for.
pub(super) fn json_problem(text: &str, error: &serde_json::Error) -> String {
    let of_python = error.is_syntax() && ["NaN", "Infinity"].iter().any(|n| text.contains(n));
    let note = " (JSON has neither NaN nor Infinity)";
    format!("{error}{}", if of_python { note } else { "" })
}
