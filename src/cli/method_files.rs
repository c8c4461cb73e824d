//! `--method-file`: scores and kept tokens of other programs, which join a sweep by name.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kvprof::budget::{CacheBudget, Geometry};
use kvprof::eval::Case;
use kvprof::files;
use kvprof::method::{Method, NamedFiles};
use kvprof::select::{Imports, ScoreFiles};
use serde_json::json;

/// Arguments for what other programs made.
#[derive(Debug, clap::Args)]
pub struct MethodFileArguments {
    /// Scores that another program made, as a method and as a scorer (zigzag+NAME+pooled): a .safetensors file of one prompt,
    /// or a folder of them, with ids [T] and scores [L, H_kv, T]; or what it keeps, kept [L, H_kv, T], as the method NAME beside
    /// those of BUDGET
    #[arg(long = "method-file", value_name = "NAME[@BUDGET]=PATH")]
    method_files: Vec<String>,
    /// Write id and token ids of every prompt (its context alone under --protocol question-after) as JSONL, for the
    /// programs that make such files, and do nothing else
    #[arg(long, value_name = "PROMPTS.jsonl")]
    pub write_prompts: Option<PathBuf>,
}

impl MethodFileArguments {
    /// The methods of a list in which files may be named; files that it does not name are methods too.
    pub fn methods(&self, list: &str, budgets: &[CacheBudget]) -> anyhow::Result<Vec<Method>> {
        let named = self.method_files.iter().map(|text| named(text, budgets));
        let named = named.collect::<anyhow::Result<Vec<_>>>()?;
        for (place, one) in named.iter().enumerate() {
            let again = named[..place].iter().any(|other| other.name == one.name);
            anyhow::ensure!(!again, "--method-file names {} twice", one.name);
        }
        let mut methods = Method::parse_list_with(list, &named)?;
        for one in &named {
            let asked = |m: &Method| {
                m.cut
                    .as_ref()
                    .is_some_and(|cut| cut.ranking.name == one.name)
            };
            if !methods.iter().any(asked) {
                methods.push(Method::parse_with(&one.name, &named)?);
            }
        }
        Ok(methods)
    }
}

/// Reads `NAME=PATH` or `NAME@BUDGET=PATH`.
fn named(text: &str, budgets: &[CacheBudget]) -> anyhow::Result<NamedFiles> {
    let (left, path) = text
        .split_once('=')
        .filter(|(name, path)| !name.is_empty() && !path.is_empty())
        .with_context(|| format!("--method-file {text} is no NAME=PATH"))?;
    let (name, budget) = match left.split_once('@') {
        Some((name, budget)) => (name, Some(budget.parse::<CacheBudget>()?)),
        None => (left, None),
    };
    let files = ScoreFiles::open(Path::new(path)).with_context(|| format!("reading {name}"))?;
    match (files.imports(), budget) {
        (Imports::Scores, Some(budget)) => anyhow::bail!(
            "--method-file {name}@{budget}: {path} has scores, which serve every budget: leave @{budget} out"
        ),
        (Imports::Kept, None) => anyhow::bail!(
            "--method-file {name}: {path} says what is kept: say beside which budget it is to be compared, as \
             {name}@128={path}"
        ),
        (Imports::Kept, Some(budget)) if budget.tokens().is_none() => anyhow::bail!(
            "--method-file {name}@{budget}: kept tokens are compared beside tokens (128) or a share of the prompt (12%)"
        ),
        (Imports::Kept, Some(budget)) if !budgets.contains(&budget) => {
            anyhow::bail!("--method-file {name}@{budget} is not among --budgets: add {budget}")
        }
        _ => {}
    }
    Ok(NamedFiles::new(name, files.at(budget))?)
}

/// Refuses prompts that some method's files do not have.
pub fn check_files(methods: &[Method], cases: &[Case], model: &Geometry) -> anyhow::Result<()> {
    for (method, files) in methods.iter().filter_map(|m| Some((m, m.files()?))) {
        let asked = files.budget().and_then(CacheBudget::tokens);
        for case in cases {
            let checked = files.check(&case.id, case.context(), model.layers, model.kv_heads);
            let kept = checked.with_context(|| format!("method {}", method.name))?;
            if let (Some(kept), Some(asked)) = (kept, asked) {
                let asked = asked.per_head(case.context().len());
                // Other programs round to whole tokens in their own ways.
                anyhow::ensure!(
                    (kept - asked).abs() <= 1.0,
                    "method {} keeps {kept:.1} tokens per KV head of prompt {}, but is named beside {asked:.1}: name the \
                     budget that it keeps",
                    method.name,
                    case.id
                );
            }
        }
    }
    Ok(())
}

/// Writes a line of id and token ids for everything that is prefilled and cut: prompts, or contexts once each.
pub fn write_prompts(out: &Path, cases: &[Case]) -> anyhow::Result<()> {
    anyhow::ensure!(
        out.file_name().is_some() && !out.is_dir(),
        "--write-prompts {} is a folder, a file is needed",
        out.display()
    );
    let mut written = HashSet::new();
    let fresh = cases.iter().filter(|case| written.insert(case.context()));
    let line = |case: &Case| json!({"id": case.id, "ids": case.context()}).to_string() + "\n";
    let text: String = fresh.map(line).collect();
    let holds = std::fs::read(out).map(|old| old == text.as_bytes());
    anyhow::ensure!(
        !out.exists() || holds.is_ok_and(|same| same),
        "--write-prompts {} exists and holds something else: name another file",
        out.display()
    );
    Ok(files::replace_with(out, text.as_bytes())?)
}
