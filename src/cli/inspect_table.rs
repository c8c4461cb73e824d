//! What `kvprof inspect` prints.

use std::io::{self, Write};

use kvprof::model::cache::Representation;

use super::inspection::{Held, Inspection};
use super::text_table::text_table;

/// Width of the names before what is told.
const NAMES: usize = 12;

/// Writes everything that is known of a model.
pub fn write_table(out: &mut impl Write, inspection: &Inspection) -> io::Result<()> {
    let (files, config) = (&inspection.files, &inspection.card.config);
    let geometry = &inspection.geometry;
    let mut line = |name: &str, text: String| writeln!(out, "{name:NAMES$}{text}");
    line("model", files.name.clone())?;
    line("from", files.origin.clone())?;
    if let Some(sha256) = &inspection.sha256 {
        line("SHA-256", sha256.clone())?;
    }
    line(
        "family",
        format!("{} ({})", config.family.architecture, config.family.about),
    )?;
    line("weights", weights(inspection))?;
    line("layers", layers(inspection))?;
    line(
        "heads",
        format!(
            "{} query and {} KV heads of {} dimensions{}",
            geometry.heads,
            geometry.kv_heads,
            geometry.head_dim,
            match inspection.rotated() {
                all if all == geometry.head_dim => String::new(),
                some => format!(", of which {some} are rotated"),
            }
        ),
    )?;
    line(
        "width",
        format!(
            "hidden {}, feed-forward {}",
            config.hidden_size, config.intermediate_size
        ),
    )?;
    line("context", context(inspection))?;
    line("tokenizer", tokenizer(inspection))?;
    let stops = inspection.card.tokens.stops.iter();
    let stops: Vec<String> = stops.map(|(id, text)| format!("{text} ({id})")).collect();
    line("stop ids", stops.join(", "))?;
    line(
        "chat",
        if inspection.card.has_chat_template {
            "has a template"
        } else {
            "no template: a base model, or one whose files lack it"
        }
        .to_owned(),
    )?;
    write_caches(out, inspection)
}

fn weights(inspection: &Inspection) -> String {
    let groups = &inspection.card.tensors;
    let parameters: u64 = groups.iter().map(|group| group.parameters).sum();
    let kinds: Vec<String> = groups
        .iter()
        .map(|group| format!("{} {}", group.tensors, group.name))
        .collect();
    format!(
        "{} in {}, {} parameters; tensors: {}",
        bytes(inspection.file_bytes),
        if inspection.files.weights.is_dir() {
            "safetensors"
        } else {
            "GGUF"
        },
        short(parameters),
        kinds.join(", ")
    )
}

fn layers(inspection: &Inspection) -> String {
    let geometry = &inspection.geometry;
    let Some(windows) = geometry.windows_in_words() else {
        return format!("{}, all global", geometry.layers);
    };
    let global = geometry.global_layers();
    let global: Vec<String> = global.iter().map(usize::to_string).collect();
    let global = if global.is_empty() {
        "none global".to_owned()
    } else {
        format!("global: {}", global.join(", "))
    };
    format!("{}, {windows} tokens; {global}", geometry.layers)
}

fn context(inspection: &Inspection) -> String {
    let config = &inspection.card.config;
    let all = format!("{} tokens", config.max_position_embeddings);
    let long = config.ropes.iter().find_map(|rope| rope.long.as_ref());
    match long {
        Some(long) => format!(
            "{all}; texts of more than {} are rotated by other frequencies",
            long.above
        ),
        None => all,
    }
}

fn tokenizer(inspection: &Inspection) -> String {
    let tokens = &inspection.card.tokens;
    let begins = match &tokens.bos {
        Some((id, text)) => format!("a text begins with {text} ({id})"),
        None => "nothing is put before a text".to_owned(),
    };
    format!(
        "{} tokens in {} rows of the embedding; {begins}",
        tokens.tokens, inspection.card.config.vocab_size
    )
}

fn write_caches(out: &mut impl Write, inspection: &Inspection) -> io::Result<()> {
    let context = inspection.card.config.max_position_embeddings;
    let lengths = inspection.lengths.iter().map(|&tokens| {
        let beyond = if tokens > context { " *" } else { "" };
        format!("{}{beyond}", length(tokens))
    });
    let lengths: Vec<String> = lengths.collect();
    let windowed = !inspection.geometry.windows.is_empty();
    let mut headings = vec!["<full cache".to_owned(), "per token".to_owned()];
    if windowed {
        headings.push("beyond windows".to_owned());
    }
    headings.extend(lengths.iter().cloned());
    let mut table = text_table(headings);
    for held_as in Representation::that_hold(inspection.geometry.head_dim) {
        let [first, later] = inspection.bytes_per_token(held_as);
        let mut row = vec![held_as.to_string(), bytes(first as u64)];
        if windowed {
            row.push(bytes(later as u64));
        }
        row.extend(
            inspection
                .full
                .iter()
                .map(|held| size(inspection, held, held_as)),
        );
        table.add_row(row);
    }
    writeln!(out, "\n{}", table.trim_fmt())?;
    let held_as = inspection.held_as;
    let mut headings = vec![format!("<budget ({held_as})")];
    headings.extend(lengths);
    let mut table = text_table(headings);
    for (budget, held) in &inspection.budgets {
        let cell = |(held, full): (&Held, &Held)| {
            let share = 100.0 * held.tokens() as f64 / full.tokens().max(1) as f64;
            format!("{} ({share:.1} %)", size(inspection, held, held_as))
        };
        let cells = held.iter().zip(&inspection.full).map(cell);
        table.add_row(std::iter::once(budget.to_string()).chain(cells));
    }
    writeln!(out, "\n{}", table.trim_fmt())?;
    let mut notes = Vec::new();
    if inspection.lengths.iter().any(|tokens| *tokens > context) {
        notes.push(format!("* longer than the model's context of {context}"));
    }
    if windowed && inspection.whole_windows {
        notes.push(
            "layers with a window keep it whole, and budgets are those of the others".to_owned(),
        );
    } else if windowed {
        notes.push("budgets are over all layers, none above its window".to_owned());
    }
    if !notes.is_empty() {
        writeln!(out, "\n{}", notes.join("\n"))?;
    }
    Ok(())
}

fn size(inspection: &Inspection, held: &Held, held_as: Representation) -> String {
    bytes(inspection.bytes(held, held_as) as u64)
}

/// Bytes in the unit that leaves one to four digits.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{count} B");
    }
    let digits = usize::from(value < 10.0) + usize::from(value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number of parameters as models are named by it.
fn short(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{count}"),
        1_000_000..1_000_000_000 => format!("{:.0}M", count as f64 / 1e6),
        _ => format!("{:.2}B", count as f64 / 1e9),
    }
}

fn length(tokens: usize) -> String {
    if tokens.is_multiple_of(1024) {
        format!("{}k", tokens / 1024)
    } else {
        tokens.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_288), "12.3 kB");
        assert_eq!(bytes(491_400_064), "491 MB");
        assert_eq!(bytes(1_610_612_736), "1.61 GB");
        assert_eq!(short(134_515_008), "135M");
        assert_eq!(short(70_553_706_496), "70.55B");
        assert_eq!(
            (length(32_768), length(1000)),
            ("32k".into(), "1000".into())
        );
    }
}
