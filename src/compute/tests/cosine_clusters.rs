//! k-means by cosine: cases worked out by hand, and what holds for any points.

use proptest::prelude::*;

use super::*;

/// Gives listed numbers one after another, and the last one for ever.
fn numbers(listed: &'static [f64]) -> impl FnMut() -> f64 {
    let mut next = 0;
    move || {
        next += 1;
        listed[(next - 1).min(listed.len() - 1)]
    }
}

/// A repeatable source of numbers from 0 to below 1.
fn mixed(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Points a = (2, 0), b = (4, 1), c = (0, 3), d = (1, 6).
///
/// The first centre is drawn with u = 0.3: the cumulative weights 1, 2 pass 0.3 * 4 = 1.2 at b. Weights are then
/// 1 - cos(b, .): cos(b, a) = 4/sqrt(17) = 0.970, cos(b, b) = 1, cos(b, c) = 1/sqrt(17) = 0.243 and
/// cos(b, d) = 10/sqrt(17 * 37) = 0.399, so 0.030, 0, 0.757, 0.601, in all 1.388. With u = 0.9 the bound is 1.250,
/// which is passed at d (0.787 after c). a and b are nearer to b, c and d to d: means (3, 0.5) and (0.5, 4.5). The next
/// round changes nothing.
#[test]
fn two_directions_are_found_as_by_hand() {
    let points = [2.0, 0.0, 4.0, 1.0, 0.0, 3.0, 1.0, 6.0];
    let found = cosine_clusters(&points, 2, 2, 20, &mut numbers(&[0.3, 0.9]));
    assert_eq!(found.members, [[0, 1], [2, 3]]);
    assert_eq!(found.centroids, [3.0, 0.5, 0.5, 4.5]);
    assert!(found.settled);
    // One round moves the means, but does not see that nothing changes after it.
    let found = cosine_clusters(&points, 2, 2, 1, &mut numbers(&[0.3, 0.9]));
    assert_eq!(found.centroids, [3.0, 0.5, 0.5, 4.5]);
    assert!(!found.settled);
    // u = 0.5 has the bound 0.694, which is passed at c; the clusters are the same.
    let found = cosine_clusters(&points, 2, 2, 20, &mut numbers(&[0.3, 0.5]));
    assert_eq!(found.members, [[0, 1], [2, 3]]);
}

/// Lengths count in the mean, not in the assignment: (1, 0) and (9, 9) have the mean (5, 4.5).
#[test]
fn means_are_of_points_as_they_came() {
    let found = cosine_clusters(&[1.0, 0.0, 9.0, 9.0], 2, 1, 20, &mut numbers(&[0.0]));
    assert_eq!(found.centroids, [5.0, 4.5]);
    assert_eq!(found.members, [[0, 1]]);
}

/// A point as near to two centroids belongs to the lower: (1, 1) between (1, 0) and (0, 1), in either order.
#[test]
fn equals_go_to_the_lower_index() {
    let points = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    // u = 0 draws the first point, then the first of positive weight, which is the second.
    let found = cosine_clusters(&points, 2, 2, 1, &mut numbers(&[0.0]));
    assert_eq!(found.members, [vec![0, 2], vec![1]]);
    // The second point first: u = 0.4 of 3 is 1.2; then u = 0 draws the first.
    let found = cosine_clusters(&points, 2, 2, 1, &mut numbers(&[0.4, 0.0]));
    assert_eq!(found.members, [vec![1, 2], vec![0]]);
}

#[test]
fn fewer_directions_than_clusters_leave_none_without_members() {
    // Three times the same point and a longer one in its direction: after the first centre no weight is left.
    let points = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 4.0, 0.0];
    let found = cosine_clusters(&points, 2, 3, 20, &mut mixed(3));
    assert_eq!(found.members, [[0, 1, 2, 3]]);
    assert_eq!(found.centroids, [1.75, 0.0]);
    assert!(found.settled);
    // Two directions, four clusters.
    let points = [1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 1.0];
    let found = cosine_clusters(&points, 2, 4, 20, &mut mixed(5));
    let mut members = found.members;
    members.sort();
    assert_eq!(members, [[0, 2], [1, 3]]);
}

#[test]
fn zero_vectors_are_points_like_others() {
    let points = [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, -1.0, 0.5];
    for seed in 0..20 {
        for count in 1..6 {
            let found = cosine_clusters(&points, 2, count, 20, &mut mixed(seed));
            assert!(found.centroids.iter().all(|x| x.is_finite()));
            assert_eq!(found.members.iter().flatten().count(), 4);
        }
    }
    let none = cosine_clusters(&[0.0; 6], 2, 2, 20, &mut mixed(1));
    assert_eq!(none.members, [[0, 1, 2]]);
}

#[test]
fn nothing_has_no_clusters() {
    assert_eq!(
        cosine_clusters(&[], 4, 3, 20, &mut mixed(1)),
        CosineClusters::default()
    );
    assert_eq!(
        cosine_clusters(&[1.0], 1, 0, 20, &mut mixed(1)),
        CosineClusters::default()
    );
}

#[test]
fn draws_are_proportional_to_weights() {
    let weights = [1.0, 0.0, 2.0, 1.0];
    for (u, want) in [
        (0.0, 0),
        (0.24, 0),
        (0.25, 2),
        (0.74, 2),
        (0.75, 3),
        (0.999, 3),
    ] {
        assert_eq!(drawn(&weights, u), want, "{u}");
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let both = length(a) * length(b);
    if both > 0.0 { dot / both } else { 0.0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any points, more than a block of them among others.
    #[test]
    fn members_partition_the_points_and_lie_nearest(
        (count, width, clusters, seed) in (1usize..150, 1usize..6, 1usize..12, any::<u64>())
    ) {
        let mut random = mixed(seed);
        let points: Vec<f32> = (0..count * width).map(|_| (random() * 4.0 - 2.0) as f32).collect();
        let run = || cosine_clusters(&points, width, clusters, 60, &mut mixed(seed ^ 7));
        let found = run();
        prop_assert_eq!(&found, &run(), "the same numbers give the same clusters");
        prop_assert!(found.members.len() <= clusters.min(count));
        let mut all: Vec<u32> = found.members.concat();
        prop_assert!(found.members.iter().all(|m| !m.is_empty() && m.is_sorted()));
        all.sort_unstable();
        prop_assert_eq!(all, (0..count as u32).collect::<Vec<_>>());
        let point = |p: u32| -> Vec<f64> {
            points[p as usize * width..][..width].iter().map(|x| f64::from(*x)).collect()
        };
        let centroids: Vec<&[f64]> = found.centroids.chunks(width).collect();
        for (members, centroid) in found.members.iter().zip(&centroids) {
            for (d, x) in centroid.iter().enumerate() {
                let mean = members.iter().map(|&p| point(p)[d]).sum::<f64>() / members.len() as f64;
                prop_assert!((mean - x).abs() < 1e-9);
            }
            for &p in members.iter().filter(|_| found.settled) {
                let own = cosine(&point(p), centroid);
                let best = centroids.iter().map(|c| cosine(&point(p), c));
                prop_assert!(best.fold(own, f64::max) <= own + 1e-12);
            }
        }
    }
}
