//! Tables on a terminal: no lines, columns as wide as their widest cell.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table; columns are aligned at the right, but for those whose heading begins with `<`.
pub fn text_table<H: AsRef<str>>(headings: impl IntoIterator<Item = H>) -> Table {
    let headings: Vec<H> = headings.into_iter().collect();
    let mut table = Table::new();
    let shown = headings.iter().map(|h| h.as_ref().trim_start_matches('<'));
    table.load_preset(presets::NOTHING).set_header(shown);
    for (column, heading) in table.column_iter_mut().zip(&headings) {
        column.set_padding((0, 2));
        column.set_cell_alignment(if heading.as_ref().starts_with('<') {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        });
    }
    table
}

/// A bar of at most `widest` blocks that is as long as `value` is of `most`.
pub fn bar(value: f64, most: f64, widest: usize) -> String {
    "█".repeat((value / most * widest as f64).round() as usize)
}

/// A number that heads the rows it is shared by, written in the first of them; `before` is that of the last row.
pub fn once(before: &mut Option<usize>, number: usize) -> String {
    if before.replace(number) == Some(number) {
        String::new()
    } else {
        number.to_string()
    }
}

/// A number, or nothing where it is not known.
pub fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = text_table(["<name", "tokens", "<"]);
        table.add_row(["a", "128.0", "██"]);
        table.add_row(["longer", "7", ""]);
        let lines = ["name    tokens", "a        128.0  ██", "longer       7"];
        assert_eq!(table.trim_fmt(), lines.join("\n"));
    }

    #[test]
    fn bars_are_rounded() {
        assert_eq!(bar(1.0, 3.0, 24), "████████");
        assert_eq!(bar(0.01, 1.0, 24), "");
    }
}
