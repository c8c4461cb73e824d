//! Operations on a GPU against the CPU; needs the feature `cuda` and a device, and says so where there is none.
#![allow(clippy::unwrap_used)]

mod kernel_cases;

use candle_core::Device;
use kernel_cases::{
    Case, best_token_cases, key_norm_cases, key_order_cases, mass_sum_cases, pooling_cases,
    prefill_cases, ragged_cases, row_budget_cases, row_sum_cases, running_sum_cases,
};

/// The device; none where there is none, unless KVPROF_REQUIRE_DEVICE says that there must be one.
fn device() -> Option<Device> {
    let found = match cfg!(feature = "cuda") {
        true => Device::new_cuda(0).map_err(|why| why.to_string()),
        false => Err("built without the feature cuda".into()),
    };
    match found {
        Ok(device) => Some(device),
        Err(why) if std::env::var_os("KVPROF_REQUIRE_DEVICE").is_some() => panic!("{why}"),
        Err(why) => {
            let why = why.lines().next().unwrap_or_default();
            eprintln!("skipped: no device ({why})");
            None
        }
    }
}

fn check(cases: impl FnOnce() -> Vec<Case>) {
    let Some(device) = device() else { return };
    for case in cases() {
        case.assert_equals_cpu(&case.call.on(&device));
    }
}

#[test]
fn counts_to_mass_equal_those_of_sorted_rows() {
    check(row_budget_cases);
}

#[test]
fn sums_of_rows_equal_those_of_the_cpu() {
    check(row_sum_cases);
}

#[test]
fn ragged_attention_equals_the_definition() {
    check(ragged_cases);
}

#[test]
fn prefill_attention_equals_the_definition() {
    check(prefill_cases);
}

#[test]
fn orders_of_keys_equal_a_stable_sort() {
    check(|| key_order_cases(131_072));
}

#[test]
fn running_sums_equal_those_of_the_cpu() {
    check(running_sum_cases);
}

#[test]
fn masses_equal_those_of_the_cpu() {
    check(mass_sum_cases);
}

#[test]
fn pooled_heads_equal_those_of_the_cpu() {
    check(pooling_cases);
}

#[test]
fn norms_of_keys_equal_those_of_the_cpu() {
    check(key_norm_cases);
}

#[test]
fn largest_entries_equal_those_of_the_cpu() {
    check(|| best_token_cases(1 << 20));
}
