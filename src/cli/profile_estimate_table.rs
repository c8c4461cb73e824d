//! What a profile costs in operations and time, in words.

use std::io::Write;

use kvprof::profile::{Calibration, KindTimes, SecondsRange};

use super::counted;
use super::memory_need::amount;
use super::profile_estimate::{CalibrationOfPrompt, ProfileEstimate, RunTime, RunTimes};
use super::text_table::text_table;

impl ProfileEstimate {
    /// Prints it; `at_once` prompts will be at work together.
    pub fn write(&self, out: &mut impl Write, at_once: usize) -> anyhow::Result<()> {
        writeln!(
            out,
            "\nOperations: {} in projections and feed-forward, {} in attention",
            operations(self.flops_layers),
            operations(self.flops_attention)
        )?;
        if let Some(why) = &self.why_not_timed {
            writeln!(out, "Not timed: {why}")?;
        }
        match &self.time {
            Some(times) => times.write(out, at_once),
            None => Ok(()),
        }
    }
}

impl RunTimes {
    fn write(&self, out: &mut impl Write, at_once: usize) -> anyhow::Result<()> {
        let mut table = text_table([
            "<",
            "time",
            "least to most",
            "reading",
            "<weights read",
            "memory",
        ]);
        for (what, run) in [
            ("layer by layer", &self.streamed),
            ("all layers at once", &self.unstreamed),
        ] {
            table.add_row(row(what, run));
        }
        writeln!(out, "\n{}\n", table.trim_fmt())?;
        self.calibration.write(out, at_once)
    }
}

fn row(what: &str, run: &RunTime) -> [String; 6] {
    let read = match run.readings {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    [
        what.to_owned(),
        duration(run.total.seconds),
        between(&run.total),
        duration(run.reading.seconds),
        read,
        amount(run.memory),
    ]
}

impl CalibrationOfPrompt {
    fn write(&self, out: &mut impl Write, at_once: usize) -> anyhow::Result<()> {
        let timed = &self.timed;
        let parts: Vec<String> = timed
            .kinds
            .iter()
            .map(of_kind)
            .chain(of_others(timed))
            .collect();
        writeln!(
            out,
            "From {} of the model's own layers on tokens of prompt {}, on this machine, now: {}",
            duration(timed.seconds),
            self.prompt,
            parts.join(", ")
        )?;
        writeln!(out, "{}", of_reading(timed))?;
        let longest = timed
            .kinds
            .iter()
            .filter_map(|kind| kind.tokens.last())
            .min();
        if let Some(longest) = longest.filter(|longest| **longest < self.prompt_tokens) {
            writeln!(
                out,
                "What is longer than {longest} tokens was not timed: the longest prompt, of {}, is an extrapolation",
                self.prompt_tokens
            )?;
        }
        if at_once > 1 {
            writeln!(
                out,
                "The time is that of one prompt after the other; {at_once} at once were not timed"
            )?;
        }
        writeln!(
            out,
            "Least and most are what these timings leave open, not what a busier machine would take"
        )?;
        Ok(())
    }
}

/// "layer 0 on 64, 128, 256 tokens".
fn of_kind(kind: &KindTimes) -> String {
    let tokens: Vec<String> = kind.tokens.iter().map(usize::to_string).collect();
    let window = kind
        .window
        .map_or(String::new(), |window| format!(" (window of {window})"));
    format!(
        "layer {}{window} on {} tokens",
        kind.layer,
        tokens.join(", ")
    )
}

/// "layers 1 to 4 on 256".
fn of_others(timed: &Calibration) -> Option<String> {
    let (first, last) = (timed.others.first()?, timed.others.last()?);
    let which = if first.layer == last.layer {
        format!("layer {}", first.layer)
    } else {
        format!("layers {} to {}", first.layer, last.layer)
    };
    Some(format!("{which} on {}", first.tokens))
}

fn of_reading(timed: &Calibration) -> String {
    let reading = &timed.reading;
    let all: f64 = reading.seconds_of.iter().sum();
    if reading.layers.is_empty() {
        return format!(
            "Reading a layer that had been read before took {}",
            duration(reading.seconds_again)
        );
    }
    let layers = counted(reading.layers.len(), "layer");
    let from = match reading.from_disk {
        Some(bytes) => format!(
            ", {} of it from a disk, the rest from the system's memory",
            amount(bytes as usize)
        ),
        None => String::new(),
    };
    format!(
        "Reading {layers} that had not been touched took {} for {}{from}",
        duration(all),
        amount(reading.bytes)
    )
}

fn between(range: &SecondsRange) -> String {
    format!("{} to {}", duration(range.least), duration(range.most))
}

/// Seconds as they are said: "0.25 s", "12 s", "3 min 20 s", "5 h 3 min".
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0 if seconds < 0.0005 => "0 s".to_owned(),
        0..10 => format!("{} s", significant(seconds)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => {
            let minutes = (seconds / 60.0).round() as u64;
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

/// Two digits that say something, of a number below 10.
fn significant(number: f64) -> String {
    match number {
        n if n < 0.01 => format!("{n:.4}"),
        n if n < 0.1 => format!("{n:.3}"),
        n if n < 1.0 => format!("{n:.2}"),
        n => format!("{n:.1}"),
    }
}

/// Operations with the prefix that leaves one to three digits before the point.
fn operations(flops: f64) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut scaled = flops;
    let mut prefixes = PREFIXES.iter();
    let mut prefix = prefixes.next().copied().unwrap_or_default();
    while scaled >= 999.95 {
        let Some(next) = prefixes.next() else {
            break;
        };
        (scaled, prefix) = (scaled / 1e3, next);
    }
    format!("{scaled:.1} {prefix}FLOP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_the_units_of_a_clock() {
        let said = [
            (0.0, "0 s"),
            (0.0042, "0.0042 s"),
            (0.25, "0.25 s"),
            (9.4, "9.4 s"),
            (12.3, "12 s"),
            (59.6, "1 min 0 s"),
            (200.0, "3 min 20 s"),
            (18_180.0, "5 h 3 min"),
            (1e6, "277 h 47 min"),
        ];
        for (seconds, text) in said {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn operations_have_one_to_three_digits_before_the_point() {
        let said = [
            (0.0, "0.0 FLOP"),
            (999.0, "999.0 FLOP"),
            (999.96, "1.0 kFLOP"),
            (4.56e12, "4.6 TFLOP"),
            (1.2e16, "12.0 PFLOP"),
            (3e22, "30000.0 EFLOP"),
        ];
        for (flops, text) in said {
            assert_eq!(operations(flops), text);
        }
    }
}
