//! The README names what can be named, and says of methods what `kvprof list` says.

use kvprof::budget::ALLOCATORS;
use kvprof::method::METHODS;
use kvprof::model::source::MODELS;
use kvprof::plot::CHARTS;

#[test]
fn the_readme_names_every_chart_strategy_and_model() {
    let readme = include_str!("../README.md");
    let charts = CHARTS.iter().map(|c| c.name);
    let strategies = ALLOCATORS.iter().map(|a| a.name);
    for name in charts
        .chain(strategies)
        .chain(MODELS.iter().map(|m| m.name))
    {
        assert!(readme.contains(&format!("`{name}`")), "README lacks {name}");
    }
}

#[test]
fn the_readme_says_of_every_method_what_the_table_says() {
    let readme = include_str!("../README.md");
    for method in METHODS {
        let start = format!("| `{}` | ", method.name);
        let mut lines = readme.lines();
        let line = lines.find(|line| line.starts_with(&start) && line.contains(method.differs));
        let line = line.unwrap_or_else(|| panic!("README lacks {}", method.name));
        for words in [method.spelled, method.paper, method.costs, method.made_for] {
            assert!(line.contains(words), "{line} lacks {words}");
        }
    }
}
