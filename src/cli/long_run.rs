//! What verbs share that go through many prompts: a bar on stderr, and a clean stop.

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` of a unit, hidden where nothing is to be said.
pub fn progress_bar(total: usize, unit: &str, quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let style = format!("{{msg}} [{{bar:30}}] {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    bar.set_style(
        ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// Moves a bar over tokens by what layers report of one prompt.
pub struct TokenProgress<'b> {
    bar: &'b ProgressBar,
    layers: usize,
    layer_tokens: usize,
    shown: usize,
}

impl<'b> TokenProgress<'b> {
    /// For a prompt of a model with `layers` layers.
    pub fn of(bar: &'b ProgressBar, layers: usize) -> Self {
        Self {
            bar,
            layers,
            layer_tokens: 0,
            shown: 0,
        }
    }

    /// One more layer has seen `tokens` tokens.
    pub fn layer_done(&mut self, tokens: usize) {
        self.layer_tokens += tokens;
        let done = self.layer_tokens / self.layers;
        self.bar.inc((done - self.shown) as u64);
        self.shown = done;
    }
}

/// Parts are renamed into place, so stopping at any moment is safe; say how to go on.
pub fn stop_cleanly(folder: &Path) {
    let folder = folder.display().to_string();
    let handler = move || {
        eprintln!("\nstopped; finished prompts are kept in {folder}: add --resume to go on");
        std::process::exit(130);
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        eprintln!("warning: Ctrl-C will stop without a message: {e}");
    }
}
