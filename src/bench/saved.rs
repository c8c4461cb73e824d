//! A run read back from its `bench.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::growth::Growth;
use super::report::{BenchModel, Machine, SCHEMA};
use crate::error::{Error, Result};
use crate::eval::RepeatSpread;
use crate::files;
use crate::run::{Made, made_by};

/// The file in the folder of a run.
const FILE: &str = "bench.json";

/// What `kvprof bench` wrote, without rates and single repeats.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Bench {
    /// What made it.
    #[serde(flatten)]
    pub made: Made,
    /// What was measured.
    pub model: BenchModel,
    /// Where.
    pub machine: Machine,
    /// How often every workload was measured.
    pub repeats: usize,
    /// Every length and workload.
    pub rows: Vec<SavedRow>,
    /// How the seconds of bare prefill grow; `None` below three lengths.
    pub growth: Option<Growth>,
    /// The same of its CPU seconds.
    pub cpu_growth: Option<Growth>,
    /// SHA-256 of the file.
    #[serde(skip)]
    pub sha256: String,
}

/// One workload at one length.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SavedRow {
    /// T.
    pub length: usize,
    /// Its name.
    pub workload: String,
    /// Seconds on the wall.
    pub wall: RepeatSpread,
    /// CPU seconds; `None` where the system did not tell.
    #[serde(deserialize_with = "known")]
    pub cpu: Option<RepeatSpread>,
    /// Wall seconds over those of the base in the same repeat.
    pub ratio: RepeatSpread,
    /// CPU seconds likewise.
    #[serde(deserialize_with = "known")]
    pub cpu_ratio: Option<RepeatSpread>,
}

/// A spread whose numbers are null where they were not known.
fn known<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<RepeatSpread>, D::Error> {
    #[derive(Deserialize)]
    struct Written {
        median: Option<f64>,
        least: Option<f64>,
        most: Option<f64>,
    }
    let written = Written::deserialize(source)?;
    let whole = || {
        Some(RepeatSpread {
            median: written.median?,
            least: written.least?,
            most: written.most?,
        })
    };
    Ok(whole())
}

impl Bench {
    /// Reads the folder that `kvprof bench --out` wrote.
    ///
    /// Errors: [`Error::Format`] for another folder, another layout, or numbers that no run gives;
    /// [`Error::Io`].
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.is_file() {
            let what = match made_by(folder) {
                Some(maker) => format!("is a folder of `{maker}`"),
                None => "is not a folder of `kvprof bench`".to_owned(),
            };
            let problem = format!("{what} (no {FILE}); make one with `kvprof bench --out`");
            return Err(Error::format(folder, problem));
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        Self::parse(&bytes, &path)
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let foreign = |e: serde_json::Error| {
            let problem = format!("is not what `kvprof bench` writes: {e}");
            Error::format_at(path, e.line(), problem)
        };
        let value: Value = serde_json::from_slice(bytes).map_err(foreign)?;
        let wrong = |problem: String| Err(Error::format(path, problem));
        let Some(schema) = value.get("schema").and_then(Value::as_u64) else {
            return wrong("is not what `kvprof bench` writes: it has no layout version".to_owned());
        };
        if schema != u64::from(SCHEMA) {
            return wrong(format!(
                "has layout version {schema}, this kvprof reads {SCHEMA}: run kvprof bench again"
            ));
        }
        let mut bench: Self = serde_json::from_slice(bytes).map_err(foreign)?;
        bench.sha256 = files::sha256_hex(bytes);
        let growths = [&bench.growth, &bench.cpu_growth];
        if !growths.into_iter().flatten().all(is_plausible) {
            return wrong("has a damaged growth: run kvprof bench again".to_owned());
        }
        let mut seen = std::collections::BTreeSet::new();
        let damaged = bench.rows.iter().position(|row| {
            let again = !seen.insert((row.length, &row.workload));
            again || !row.is_sound()
        });
        match damaged {
            Some(row) => wrong(format!(
                "row {} is damaged: run kvprof bench again",
                row + 1
            )),
            None => Ok(bench),
        }
    }
}

/// Seconds that no measurement takes.
const NEVER: f64 = 1e9;

/// Whether a fit's coefficients are seconds per token, or per token squared.
fn is_plausible(growth: &Growth) -> bool {
    let limits = [growth.linear_at_limit, growth.quadratic_at_limit];
    let fit = [Some(growth.linear), Some(growth.quadratic)];
    let all = fit.into_iter().chain(limits).flatten();
    all.map(f64::abs).all(|x| x < NEVER)
}

impl SavedRow {
    /// Whether its times are times: positive, and in order.
    fn is_sound(&self) -> bool {
        let ordered = |s: &RepeatSpread| {
            0.0 < s.least && s.least <= s.median && s.median <= s.most && s.most < NEVER
        };
        let spreads = [Some(&self.wall), Some(&self.ratio)];
        let of_cpu = [self.cpu.as_ref(), self.cpu_ratio.as_ref()];
        let length = 0 < self.length && (self.length as f64) < NEVER;
        length && spreads.into_iter().chain(of_cpu).flatten().all(ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Seconds;
    use super::super::growth::growth;
    use super::super::report::{BenchReport, Measured};
    use super::super::run::Measurement;
    use super::super::summary::summarise;
    use super::super::{Shape, arithmetic};
    use super::*;
    use crate::model::cache::Representation;
    use arithmetic::tests::{WEIGHTS, small};

    /// A report as a run gives it, with CPU seconds of `cpu` for each on the wall.
    fn report(cpu: f64) -> BenchReport {
        let config = small();
        let shape_of = |tokens| Shape {
            config: &config,
            weights: WEIGHTS,
            cache: Representation::FLOAT32,
            tokens,
            steps: 2,
        };
        let lengths = [64, 128, 256];
        let measurement = |length: usize, workload, repeat: usize| {
            let wall = length as f64 * 1e-3 * (1.0 + repeat as f64 / 8.0);
            Measurement {
                length,
                workload,
                repeat,
                seconds: Seconds {
                    wall,
                    cpu: cpu * wall,
                },
                peak_bytes: None,
            }
        };
        let names = ["prefill", "profile-32"];
        let cells = lengths.iter().flat_map(|l| names.map(|name| (*l, name)));
        let all: Vec<_> = cells
            .flat_map(|(length, name)| [0, 1].map(|repeat| measurement(length, name, repeat)))
            .collect();
        let rows = summarise(&all, &shape_of, None);
        let bare = |seconds: fn(&super::super::WorkloadRow) -> f64| -> Vec<_> {
            let bare = rows.iter().filter(|row| row.workload == "prefill");
            bare.map(|row| (row.length, seconds(row))).collect()
        };
        BenchReport {
            made: Made::by("kvprof bench", SCHEMA),
            model: Measured {
                model: BenchModel {
                    name: "tiny".to_owned(),
                    source: "here".to_owned(),
                    sha256: "a1".to_owned(),
                    device: "Cpu".to_owned(),
                    dtype: "f32".to_owned(),
                },
                weights: WEIGHTS,
                cache_bytes_per_token: 96,
            },
            machine: Machine {
                cpu: None,
                threads: 2,
                load: Some(0.5),
            },
            lengths: lengths.to_vec(),
            repeats: 2,
            steps: 2,
            limits: None,
            growth: growth(&bare(|row| row.wall.median), &config, Some(1e6)),
            cpu_growth: growth(&bare(|row| row.cpu.median), &config, None),
            rows,
            left_out: Vec::new(),
        }
    }

    fn read(text: &str) -> Result<Bench> {
        Bench::parse(text.as_bytes(), Path::new("bench.json"))
    }

    #[test]
    fn a_report_is_read_back() {
        let temporary = tempfile::tempdir().unwrap();
        let report = report(2.0);
        report.write(&temporary.path().join(FILE)).unwrap();
        let bench = Bench::load(temporary.path()).unwrap();
        assert_eq!(bench.machine, report.machine);
        assert_eq!(bench.growth, report.growth);
        assert_eq!(bench.cpu_growth, report.cpu_growth);
        assert_eq!(bench.sha256.len(), 64);
        assert_eq!(bench.rows.len(), 6);
        for (saved, row) in bench.rows.iter().zip(&report.rows) {
            assert_eq!((saved.length, &*saved.workload), (row.length, row.workload));
            assert_eq!((saved.wall, saved.cpu), (row.wall, Some(row.cpu)));
            assert_eq!(
                (saved.ratio, saved.cpu_ratio),
                (row.ratio, Some(row.cpu_ratio))
            );
        }
    }

    #[test]
    fn cpu_seconds_that_no_system_told_are_not_known() {
        let bench = read(&report(f64::NAN).to_json().unwrap()).unwrap();
        assert!(
            bench
                .rows
                .iter()
                .all(|r| r.cpu.is_none() && r.cpu_ratio.is_none())
        );
        assert!(bench.growth.is_some() && bench.cpu_growth.is_none());
    }

    #[test]
    fn files_that_no_run_writes_are_refused() {
        let text = report(2.0).to_json().unwrap();
        let problem = |text: &str| read(text).unwrap_err().to_string();
        let changed = |change: fn(&mut Value)| {
            let mut value: Value = serde_json::from_str(&text).unwrap();
            change(&mut value);
            problem(&value.to_string())
        };
        assert!(problem("{}").contains("no layout version"));
        assert!(problem("not JSON").contains("line 1: is not what `kvprof bench` writes"));
        let newer = changed(|v| v["schema"] = 2.into());
        assert!(
            newer.contains("layout version 2, this kvprof reads 1"),
            "{newer}"
        );
        let unknown = changed(|v| v["rows"][0]["wall"]["median"] = Value::Null);
        assert!(
            unknown.contains("invalid type: null, expected f64"),
            "{unknown}"
        );
        let unknown = changed(|v| v["growth"]["quadratic"] = Value::Null);
        assert!(
            unknown.contains("invalid type: null, expected f64"),
            "{unknown}"
        );
        for growth in [
            changed(|v| v["growth"]["linear"] = 1e305.into()),
            changed(|v| v["cpu_growth"]["quadratic"] = 1e305.into()),
        ] {
            assert!(growth.contains("damaged growth"), "{growth}");
        }
        let vast = text.replacen("\"linear\": ", "\"linear\": 1e999, \"was\": ", 1);
        assert!(problem(&vast).contains("number out of range"));
        for wrong in [
            changed(|v| v["rows"][1]["wall"]["least"] = 0.0.into()),
            changed(|v| v["rows"][1]["ratio"]["most"] = 1e-9.into()),
            changed(|v| v["rows"][1]["cpu"]["least"] = (-1.0).into()),
            changed(|v| v["rows"][1]["wall"]["most"] = 1.7e308.into()),
            changed(|v| v["rows"][1] = v["rows"][0].clone()),
        ] {
            assert!(wrong.contains("row 2 is damaged"), "{wrong}");
        }
    }

    #[test]
    fn other_folders_say_what_they_are() {
        let temporary = tempfile::tempdir().unwrap();
        let problem = || Bench::load(temporary.path()).unwrap_err().to_string();
        assert!(problem().contains("is not a folder of `kvprof bench` (no bench.json)"));
        let meta = r#"{"command": "kvprof speed --model here"}"#;
        std::fs::write(temporary.path().join("meta.json"), meta).unwrap();
        assert!(problem().contains("is a folder of `kvprof speed` (no bench.json)"));
    }
}
