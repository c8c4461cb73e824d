//! Sums of attention rows that do not depend on who adds which row when.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use super::{DeviceRows, GroupRows, RowReader};
use crate::compute::device::add_rows;
use crate::compute::lanes::vectorised;
use crate::compute::rounding::rounding_for_sums;
use crate::error::Result;

/// Sums over rows, per query head and key, added to from several threads.
///
/// Differs: every probability is rounded to a multiple of `2^-52 x rows` (1e-14 for 32 rows, 2e-12 for
/// 8,192) before it is added in float64; sums of such numbers are exact, and hence the same in any order.
/// Shapes: `(H_q, T)`.
pub struct RowSums {
    keys: usize,
    group: usize,
    heads: usize,
    /// Adding and subtracting it rounds.
    rounding: f64,
    rows: usize,
    /// Sums of one thread each, while it adds.
    parts: Mutex<Vec<Vec<f64>>>,
    /// Sums of rows that a device computed, `(H_q, T)`.
    on_device: Mutex<Option<Tensor>>,
}

/// Keys that are added up before the next row is: their sums stay in the nearest cache.
const KEYS_AT_ONCE: usize = 1024;

impl RowSums {
    /// For at most `rows` rows of `heads` query heads in groups of `group`, over `keys` keys.
    pub fn new(heads: usize, group: usize, keys: usize, rows: usize) -> Self {
        Self {
            keys,
            group,
            heads,
            rounding: rounding_for_sums(rows),
            rows,
            parts: Mutex::default(),
            on_device: Mutex::default(),
        }
    }

    /// Joins what the threads added, and gives back the memory of all but one.
    pub fn join(&mut self) {
        let parts = self.parts.get_mut().unwrap_or_else(PoisonError::into_inner);
        while parts.len() > 1 {
            let part = parts.pop().unwrap_or_default();
            let sums = parts.iter_mut().flatten();
            sums.zip(part).for_each(|(s, p)| *s += p);
        }
    }

    /// The sums `(H_q, T)` of rows that a device computed, if there are any; they stay there.
    pub fn take_from_device(&mut self) -> Option<Tensor> {
        let tensor = self.on_device.get_mut();
        tensor.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The sums so far, `[query head][key]`.
    ///
    /// Errors: [`crate::error::Error::Candle`] where they cannot be brought from a device.
    pub fn finish(mut self) -> Result<Vec<Vec<f64>>> {
        if let Some(sums) = self.take_from_device() {
            return Ok(sums.to_vec2()?);
        }
        let sums = self.take_from_host();
        Ok(sums.chunks(self.keys.max(1)).map(<[f64]>::to_vec).collect())
    }

    /// The sums so far, `(H_q, T)`, float64, without a copy: on the device that computed the rows, or on the CPU.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn into_tensor(mut self) -> Result<Tensor> {
        if let Some(sums) = self.take_from_device() {
            return Ok(sums);
        }
        let shape = (self.heads, self.keys);
        Ok(Tensor::from_vec(
            self.take_from_host(),
            shape,
            &Device::Cpu,
        )?)
    }

    fn take_from_host(&mut self) -> Vec<f64> {
        self.join();
        let part = self.lock().pop();
        part.unwrap_or_else(|| vec![0.0; self.heads * self.keys])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<f64>>> {
        // A thread that panicked left only its own sums behind, and its panic goes on.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RowReader for RowSums {
    fn read(&self, rows: &GroupRows<'_>) {
        let mut sums = match self.lock().pop() {
            Some(part) => part,
            None => vec![0.0; self.heads * self.keys],
        };
        for head in 0..rows.group {
            let line = (rows.kv_head * self.group + head) * self.keys;
            let line = &mut sums[line..][..self.keys];
            for (chunk, sums) in line.chunks_mut(KEYS_AT_ONCE).enumerate() {
                for position in rows.positions.clone() {
                    let row = rows.row(position, head);
                    let row = row.get(chunk * KEYS_AT_ONCE..).unwrap_or_default();
                    add_rounded(sums, row, self.rounding);
                }
            }
        }
        self.lock().push(sums);
    }

    fn read_on_device(&self, rows: &DeviceRows<'_>) -> Result<()> {
        let device = rows.probabilities.device();
        if device.is_metal() {
            return rows.on_host(&mut |rows| self.read(rows));
        }
        let mut sums = self
            .on_device
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sums = match &mut *sums {
            Some(sums) => sums,
            none => none.insert(Tensor::zeros((self.heads, self.keys), DType::F64, device)?),
        };
        let own = sums.narrow(0, rows.kv_head * self.group, self.group)?;
        add_rows(&own, &rows.probabilities, 0, self.rows)
    }
}

fn add_rounded(sums: &mut [f64], row: &[f32], rounding: f64) {
    vectorised!(add(sums: &mut [f64], row: &[f32], rounding: f64))
}

#[inline(always)]
fn add(sums: &mut [f64], row: &[f32], rounding: f64) {
    for (sum, &p) in sums.iter_mut().zip(row) {
        *sum += (f64::from(p) + rounding) - rounding;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_same_in_any_order_and_close_to_the_plain_ones() {
        let (tokens, rows) = (1500, 300);
        let values: Vec<f32> = (0..rows * tokens)
            .map(|i| {
                let x = (i as f64 * 0.37).sin().abs();
                (x.powi(12) / 7.0) as f32
            })
            .collect();
        let seen: Vec<usize> = (0..rows).map(|r| tokens - rows + r + 1).collect();
        let block = |range: std::ops::Range<usize>| GroupRows {
            kv_head: 0,
            positions: range.clone(),
            group: 1,
            values: &values[range.start * tokens..],
            strides: [tokens, 0],
            seen: &seen[range.start..],
        };
        let sum = |blocks: &[std::ops::Range<usize>]| {
            let sums = RowSums::new(1, 1, tokens, rows);
            // A part that stays away while others are added to, as with threads.
            blocks.iter().for_each(|range| {
                let held = sums.lock().pop();
                sums.read(&block(range.clone()));
                sums.lock().extend(held);
            });
            sums.finish().unwrap().remove(0)
        };
        let one = sum(&[0..150, 150..300]);
        assert_eq!(one, sum(&[100..300, 0..1, 1..100]));
        for (key, sum) in one.iter().enumerate() {
            let want: f64 = (0..rows)
                .filter(|r| key < seen[*r])
                .map(|r| f64::from(values[r * tokens + key]))
                .sum();
            assert!((sum - want).abs() < 300.0 * 512.0 / 2f64.powi(52), "{key}");
        }
    }
}
