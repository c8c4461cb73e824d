//! What `kvprof generate` says after the text.

use std::io::Write;

use kvprof::budget::Geometry;
use kvprof::eval::Fidelity;
use kvprof::generate::{Continuation, Generated};
use kvprof::model::Model;

use super::certified_plan;
use super::compress::Compression;
use super::text_table::{bar, text_table};

/// Fewer decoding steps than this are not timed against each other.
pub(super) const LEAST_TIMED_STEPS: usize = 8;

/// Decoding steps per second of both caches over the same steps.
pub(super) struct Rates {
    pub(super) full: f64,
    pub(super) cut: f64,
    /// How many times as fast the cut cache was in the round where it was least, and where it was most.
    pub(super) speedups: [f64; 2],
}

impl Rates {
    /// From the seconds of the full and of the cut cache in every round; `None` for too few steps to time.
    pub(super) fn of(steps: usize, rounds: [(f64, f64); 2]) -> Option<Self> {
        let rate = |seconds: [f64; 2]| {
            let all = steps * seconds.len();
            all as f64 / seconds.iter().sum::<f64>().max(1e-9)
        };
        let mut speedups = rounds.map(|(full, cut)| full / cut.max(1e-9));
        speedups.sort_by(f64::total_cmp);
        (steps >= LEAST_TIMED_STEPS).then(|| Self {
            full: rate(rounds.map(|(full, _)| full)),
            cut: rate(rounds.map(|(_, cut)| cut)),
            speedups,
        })
    }
}

/// The same prompt decoded from the full cache.
pub(super) struct Comparison {
    pub(super) full: Continuation,
    pub(super) text: String,
    pub(super) fidelity: Fidelity,
    /// Tokens that both caches were fed.
    pub(super) steps: usize,
    /// `None` for too few steps.
    pub(super) rates: Option<Rates>,
}

/// Everything that is said after the text.
pub(super) struct GenerateReport<'a> {
    /// Only the text was asked for.
    pub(super) quiet: bool,
    /// JSON was asked for.
    pub(super) json: bool,
    pub(super) model: &'a Model,
    pub(super) compression: &'a Compression,
    /// The answer, and what the cache took, without the copies of a comparison.
    pub(super) generated: Generated,
    pub(super) text: String,
    pub(super) comparison: Option<Comparison>,
}

impl GenerateReport<'_> {
    /// Prints it as it was asked for: JSON to stdout, words to stderr, or nothing.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        if self.json {
            return super::print_json(&self.to_json());
        }
        if !self.quiet {
            self.write(&mut std::io::stderr().lock())?;
        }
        Ok(())
    }

    /// First token at which the two greedy texts differ.
    fn parting(&self, full: &Continuation) -> Option<usize> {
        let pairs = || self.generated.said.ids.iter().zip(&full.ids);
        match pairs().position(|(a, b)| a != b) {
            Some(at) => Some(at),
            None if self.generated.said.ids.len() != full.ids.len() => Some(pairs().count()),
            None => None,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let (made, changed) = (&self.generated, self.changed());
        let held = made.cut.held_bytes;
        let cut = changed.then_some(&made.cut);
        let compared = self.comparison.as_ref().map(|c| {
            let rates = c.rates.as_ref();
            serde_json::json!({
                "full_text": c.text, "full_ids": c.full.ids, "parting_token": self.parting(&c.full),
                "kl": c.fidelity.kl, "top1": c.fidelity.top1,
                "steps": c.steps,
                "full_tokens_per_s": rates.map(|r| r.full), "cut_tokens_per_s": rates.map(|r| r.cut),
                "speedup": rates.map(|r| r.cut / r.full),
                "speedup_of_rounds": rates.map(|r| r.speedups),
            })
        });
        let resident = cut
            .and_then(|c| c.resident)
            .map(|(before, after)| serde_json::json!({"before_cut": before, "after_cut": after}));
        let rows = (made.held.steps > 0).then(|| {
            serde_json::json!({
                "mean": made.held.mean(), "peak": made.held.peak, "peak_bytes": made.held.peak_resident,
                "resident_bytes": made.bytes.resident, "offloaded_bytes": made.bytes.offloaded,
            })
        });
        serde_json::json!({
            "model": self.model.files.name, "prompt_tokens": made.prompt_tokens,
            "question_tokens": made.question_tokens,
            "ids": made.said.ids, "text": self.text,
            "prefill_s": made.prefill_s, "replay_s": made.replay_s, "prefill_tokens_per_s": made.prompt_tokens as f64 / made.prefill_s,
            "decode_s": made.said.seconds,
            "decode_tokens_per_s": made.said.tokens_per_second(),
            "cache_bytes": held, "full_cache_bytes": made.full_bytes,
            "cache_share": held as f64 / made.full_bytes as f64, "peak_cache_bytes": made.most_bytes,
            "resident_bytes": resident, "allocated_bytes": cut.map(|c| c.allocated_bytes),
            "cut_s": cut.map(|c| c.seconds),
            "compression": self.compression.described(), "certificate": self.certified(), "kept": cut.map(|c| &c.lengths),
            "rows_while_decoding": rows,
            "comparison": compared,
        })
    }

    /// What the plan's certificate says of this prompt.
    fn certified(&self) -> Option<String> {
        let geometry = Geometry::of_model(self.model);
        certified_plan::in_words(
            &self.compression.method,
            &geometry,
            self.generated.prompt_tokens,
        )
    }

    /// Whether the cache is another than the full one.
    fn changed(&self) -> bool {
        !self.compression.method.is_reference()
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let made = &self.generated;
        if self.compression.cuts() {
            let strategy = self.compression.strategy();
            writeln!(out, "\nTokens kept per KV head by {strategy}:")?;
            write_kept(out, &made.cut.lengths)?;
        }
        if let Some(certified) = self.certified() {
            writeln!(out, "\nCertified: {certified}")?;
        }
        writeln!(
            out,
            "\nPrefill  {} tokens in {:.2} s, {:.0} tokens/s",
            made.prompt_tokens,
            made.prefill_s,
            made.prompt_tokens as f64 / made.prefill_s
        )?;
        if made.replay_s > 0.0 {
            writeln!(
                out,
                "Again    {:.2} s to read them again for their scores",
                made.replay_s
            )?;
        }
        if made.question_tokens > 0 {
            let tokens = made.question_tokens;
            writeln!(out, "Question {tokens} tokens behind what was cut, uncut")?;
        }
        if self.compression.cuts() {
            writeln!(
                out,
                "Cut      {:.2} s to measure, allocate, select and cut, beside what prefill's probes took",
                made.cut.seconds
            )?;
        }
        let rate = made.said.tokens_per_second();
        let rate = rate.map_or(String::new(), |r| format!(", {r:.1} tokens/s"));
        writeln!(out, "Decode   {} tokens{rate}", made.said.ids.len())?;
        if self.compression.method.residency_name != "keep" && made.held.steps > 0 {
            writeln!(
                out,
                "Rows     {:.1} per KV head in the mean of {} steps, {} at most; {} of keys and values at most",
                made.held.mean(),
                made.held.steps,
                made.held.peak,
                megabytes(made.held.peak_resident)
            )?;
        }
        if made.bytes.offloaded > 0 {
            let elsewhere = megabytes(made.bytes.offloaded);
            writeln!(
                out,
                "Away     {elsewhere} of keys and values that steps recall from, at the end"
            )?;
        }
        self.write_bytes(out)?;
        match &self.comparison {
            Some(comparison) => self.write_comparison(out, comparison),
            None => Ok(()),
        }
    }

    fn write_bytes(&self, out: &mut impl Write) -> std::io::Result<()> {
        let made = &self.generated;
        let (full, most) = (megabytes(made.full_bytes), megabytes(made.most_bytes));
        if !self.changed() {
            writeln!(out, "Cache    {full} after prefill")?;
            return writeln!(out, "Buffers  {most} at their largest");
        }
        let cut = &made.cut;
        writeln!(
            out,
            "Cache    {} held after the cut, {:.1} % of the {full} that prefill held",
            megabytes(cut.held_bytes),
            100.0 * cut.held_bytes as f64 / made.full_bytes as f64,
        )?;
        writeln!(
            out,
            "Buffers  {} after the cut, with room to decode; {most} at their largest",
            megabytes(cut.allocated_bytes)
        )?;
        match cut.resident {
            Some((before, after)) => writeln!(
                out,
                "Process  {:.0} MB resident before the cut, {:.0} MB after it",
                before as f64 / 1e6,
                after as f64 / 1e6
            ),
            None => Ok(()),
        }
    }

    fn write_comparison(&self, out: &mut impl Write, c: &Comparison) -> std::io::Result<()> {
        let parting = match self.parting(&c.full) {
            Some(at) => format!("the texts part after {at} tokens"),
            None => "the texts are the same".to_owned(),
        };
        let speed = match &c.rates {
            Some(Rates {
                full,
                cut,
                speedups: [least, most],
            }) => format!(
                "decoding {:.2} x as fast ({cut:.1} against {full:.1} tokens/s over {} steps; {least:.2} and \
                 {most:.2} in two rounds)",
                cut / full,
                c.steps,
            ),
            None => format!("too few steps to time, {LEAST_TIMED_STEPS} are needed"),
        };
        let fidelity = match c.steps {
            0 => "it said nothing to compare predictions after".to_owned(),
            steps => format!(
                "after its {steps} tokens KL {:.4} nats, top-1 agreement {:.1} %",
                c.fidelity.kl,
                100.0 * c.fidelity.top1,
            ),
        };
        writeln!(
            out,
            "Against the full cache: {parting}; {fidelity}; {speed}"
        )?;
        writeln!(out, "Its text: {}", c.text.trim())
    }
}

fn megabytes(bytes: usize) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// One line per layer, with a bar.
fn write_kept(out: &mut impl Write, kept: &[Vec<usize>]) -> std::io::Result<()> {
    const BAR: usize = 40;
    let mean = |heads: &[usize]| heads.iter().sum::<usize>() as f64 / heads.len().max(1) as f64;
    let most = kept.iter().map(|h| mean(h)).fold(1.0, f64::max);
    let mut table = text_table(["layer", "mean", "<heads", "<"]);
    for (layer, heads) in kept.iter().enumerate() {
        let list: Vec<String> = heads.iter().take(8).map(ToString::to_string).collect();
        let more = if heads.len() > 8 { " …" } else { "" };
        table.add_row([
            layer.to_string(),
            format!("{:.1}", mean(heads)),
            list.join(" ") + more,
            bar(mean(heads).max(most / BAR as f64), most, BAR),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())
}
