//! Prompts that are not independent, such as those of one needle at many places: each cluster counts once.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::table::Table;

/// Column of a results table that names the cluster of a prompt.
pub const CLUSTER: &str = "cluster";

/// Which prompts belong together.
///
/// Paper: none: house definition. Differs: a table without the column [`CLUSTER`] has independent prompts.
pub(super) struct Clusters<'t> {
    of_prompt: BTreeMap<u32, &'t str>,
}

impl<'t> Clusters<'t> {
    /// Reads the clusters of a results table.
    ///
    /// Errors: [`crate::error::Error::UnknownName`] for a table without prompts.
    pub(super) fn of(table: &'t Table) -> Result<Self> {
        let prompts = table.counts("prompt")?;
        let mut of_prompt = BTreeMap::new();
        if table.column(CLUSTER).is_some() {
            for (&prompt, cluster) in prompts.iter().zip(table.texts(CLUSTER)?) {
                of_prompt.insert(prompt, cluster.as_str());
            }
        }
        Ok(Self { of_prompt })
    }

    /// One pair per cluster, in the order of its first prompt: the means over its prompts with two finite
    /// values; NaN for a cluster that has none.
    pub(super) fn pairs(&self, pairs: impl Iterator<Item = (u32, (f64, f64))>) -> Vec<(f64, f64)> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut sums: Vec<(usize, (f64, f64))> = Vec::new();
        for (prompt, (a, b)) in pairs {
            let place = match self.of_prompt.get(&prompt) {
                Some(cluster) => *places.entry(cluster).or_insert(sums.len()),
                None => sums.len(),
            };
            if place == sums.len() {
                sums.push((0, (0.0, 0.0)));
            }
            if a.is_finite() && b.is_finite() {
                let (count, sum) = &mut sums[place];
                (*count, *sum) = (*count + 1, (sum.0 + a, sum.1 + b));
            }
        }
        let mean = |(count, (a, b)): (usize, (f64, f64))| {
            let count = match count {
                0 => f64::NAN,
                count => count as f64,
            };
            (a / count, b / count)
        };
        sums.into_iter().map(mean).collect()
    }

    /// One value per cluster, as [`Clusters::pairs`].
    pub(super) fn values(&self, values: impl Iterator<Item = (u32, f64)>) -> Vec<f64> {
        let pairs = self.pairs(values.map(|(prompt, value)| (prompt, (value, value))));
        pairs.into_iter().map(|(value, _)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    fn table(clusters: Option<[&str; 5]>) -> Table {
        let mut table = Table::default();
        table.push("prompt", Column::Count((0..5).collect()));
        if let Some(clusters) = clusters {
            let names = clusters.map(str::to_owned).to_vec();
            table.push(CLUSTER, Column::Text(names));
        }
        table
    }

    #[test]
    fn a_cluster_is_the_mean_of_its_prompts() {
        let table = table(Some(["a", "b", "a", "b", "c"]));
        let clusters = Clusters::of(&table).unwrap();
        let nan = f64::NAN;
        let values = [1.0, nan, 3.0, 8.0, nan];
        let means = clusters.values((0..).zip(values));
        assert_eq!(means[..2], [2.0, 8.0]);
        assert!(means[2].is_nan() && means.len() == 3);
        // Pairs are made before means: prompt 2 has no partner.
        let pairs = [(1.0, 5.0), (2.0, 2.0), (9.0, nan), (4.0, 4.0), (1.0, 1.0)];
        let pairs = clusters.pairs((0..).zip(pairs));
        assert_eq!(pairs, [(1.0, 5.0), (3.0, 3.0), (1.0, 1.0)]);
    }

    #[test]
    fn without_the_column_every_prompt_stands_alone() {
        let table = table(None);
        let clusters = Clusters::of(&table).unwrap();
        let values = clusters.values([(3, 1.0), (3, 2.0), (0, 4.0)].into_iter());
        assert_eq!(values, [1.0, 2.0, 4.0]);
    }
}
