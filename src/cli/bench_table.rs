//! The table of `kvprof bench`, and what stands below it.

use std::io::{Result, Write};

use kvprof::bench::{BenchModel, BenchReport, Growth, LimitSpreads, Rates, WorkloadRow};
use kvprof::eval::RepeatSpread;

use super::text_table::{cell, once, text_table};

const HEADINGS: &str = "length, <workload, time, least to most, ratio, least to most, CPU, peak MB, needed, tok/s, \
                        GFLOP/s, GB/s, <of limit";

/// Writes rows, limits, growth and what was left out.
pub fn write(out: &mut impl Write, report: &BenchReport) -> Result<()> {
    let mut table = text_table(HEADINGS.split(", "));
    let mut length = None;
    for row in &report.rows {
        let shown = once(&mut length, row.length);
        table.add_row([shown].into_iter().chain(cells(row, report.steps)));
    }
    writeln!(
        out,
        "{}\n\nMedian of {} in turns; ratio of wall and CPU seconds to prefill (grid: to 24 of them) or decode-full in \
         the same repeat; decoding: ms per token over {} steps\nPeak: the process's own, without what is kept for \
         other workloads; needed: that over weights and cache",
        table.trim_fmt(),
        super::counted(report.repeats, "repeat"),
        report.steps
    )?;
    write_machine(out, report)?;
    let growths = [(&report.growth, "s"), (&report.cpu_growth, "CPU s")];
    for (growth, unit) in growths {
        if let Some(growth) = growth {
            write_growth(out, growth, unit)?;
        }
    }
    for left in &report.left_out {
        writeln!(
            out,
            "Left out at {}: {} needs at least {} tokens",
            left.length, left.workload, left.least_tokens
        )?;
    }
    Ok(())
}

/// Everything of a row but its length.
fn cells(row: &WorkloadRow, steps: usize) -> [String; 12] {
    let rates = row.rates.as_ref();
    let decoding = rates.filter(|r| r.decodes);
    let (scale, unit) = if decoding.is_some() {
        (1e3 / steps as f64, "ms")
    } else {
        (1.0, "s")
    };
    let peak = row.peak_bytes.map(|p| p as f64);
    [
        row.workload.to_owned(),
        format!("{:.2} {unit}", row.wall.median * scale),
        range(&row.wall, scale, 2),
        format!("{:.3}", row.ratio.median),
        range(&row.ratio, 1.0, 3),
        format!("{:.3}", row.cpu_ratio.median),
        cell(peak.map(|p| p / 1e6), 0),
        cell(peak.map(|p| p / row.needed_bytes as f64), 2),
        cell(rates.map(|r| r.tokens_per_s), 1),
        cell(rates.map(|r| r.flops_per_s / 1e9), 1),
        cell(decoding.map(|r| r.bytes_per_s / 1e9), 1),
        share(rates),
    ]
}

fn range(spread: &RepeatSpread, scale: f64, digits: usize) -> String {
    let (least, most) = (spread.least * scale, spread.most * scale);
    format!("{least:.digits$} to {most:.digits$}")
}

fn share(rates: Option<&Rates>) -> String {
    let known =
        rates.and_then(|r| Some((r.share_of_limit?, r.cpu_share_of_limit?, r.memory_binds?)));
    known.map_or("-".to_owned(), |(wall, cpu, memory)| {
        let what = if memory { "memory" } else { "arithmetic" };
        format!("{:.0} %, CPU {:.0} % of {what}", 100.0 * wall, 100.0 * cpu)
    })
}

fn write_machine(out: &mut impl Write, report: &BenchReport) -> Result<()> {
    let (machine, model) = (&report.machine, &report.model.model);
    let load = machine.load.map_or(String::new(), |load| {
        format!(", load {load:.1} before the start")
    });
    writeln!(
        out,
        "\n{} in {} on {}; {}, {}{load}",
        model.name,
        model.dtype,
        model.device,
        machine.cpu.as_deref().unwrap_or("a CPU without a name"),
        super::counted(machine.threads, "thread"),
    )?;
    match &report.limits {
        Some(limits) => write_limits(out, limits, model),
        None => writeln!(out, "No limits were measured"),
    }
}

fn write_limits(out: &mut impl Write, limits: &LimitSpreads, model: &BenchModel) -> Result<()> {
    let giga = |s: &RepeatSpread| format!("{:.1} (median {:.1})", s.most / 1e9, s.median / 1e9);
    let (flops, bytes) = (giga(&limits.flops_per_s), giga(&limits.bytes_per_s));
    if model.device != "Cpu" {
        let dtype = &model.dtype;
        return writeln!(
            out,
            "Limits in the same turns: {dtype} matrix product {flops} GFLOP/s, copying memory {bytes} GB/s"
        );
    }
    writeln!(
        out,
        "Limits in the same turns: float32 matrix product {flops} GFLOP/s, reading memory {bytes} GB/s; \
         per CPU second {:.1} and {:.1}",
        limits.flops_per_cpu_s.most / 1e9,
        limits.bytes_per_cpu_s.most / 1e9,
    )
}

fn write_growth(out: &mut impl Write, growth: &Growth, unit: &str) -> Result<()> {
    let (linear, quadratic) = (growth.linear * 1e3, growth.quadratic * 1e6);
    let limits = growth.linear_at_limit.zip(growth.quadratic_at_limit);
    let limits = limits.map_or(String::new(), |(a, b)| {
        let (a, b) = (a * 1e3, b * 1e6);
        format!("; at the matrix product's limit its operations take {a:.4} and {b:.4}")
    });
    writeln!(
        out,
        "\nPrefill in {unit}: {linear:.4}e-3 x T + {quadratic:.4}e-6 x T^2{limits}"
    )?;
    for point in &growth.points {
        let of_limit = point.of_limit.map_or(String::new(), |of| {
            format!(", {of:.2} x its operations at the limit")
        });
        writeln!(
            out,
            "{:>7}: {:.2} {unit}, {:+.1} % of the fit{of_limit}",
            point.tokens,
            point.seconds,
            100.0 * point.residual
        )?;
    }
    Ok(())
}
