//! What the machine can do at best: matrix products in cache, and reading memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;

use super::clock::{Seconds, cpu_seconds};
use crate::compute::limits::DeviceWork;
use crate::compute::product::{Operand, Threads, multiply};
use crate::error::Result;
use crate::eval::RepeatSpread;
use crate::model::decoder::Decoder;

/// Rows and columns of the product: 12 MiB of matrices, most of which any last-level cache holds.
const SIDE: usize = 1024;

/// Bytes of the array that is read, far above any last-level cache.
const ARRAY: usize = 512 << 20;

/// How long each of the two is tried.
const TRIED: Duration = Duration::from_millis(150);

/// How fast something goes at best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Per second on the wall, all threads together, in the best of several tries.
    pub wall: f64,
    /// Per CPU second: what another program's load does not change much; NaN where CPU time is not known.
    pub cpu: f64,
}

/// Rates that nothing on this machine exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Float32 matrix product on all threads.
    ///
    /// Units: floating-point operations.
    pub flops: Rate,
    /// Reading memory on all threads.
    ///
    /// Units: bytes.
    pub bytes: Rate,
}

/// What work takes at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Least {
    /// Seconds, with CPU seconds of all threads.
    pub seconds: Seconds,
    /// Whether memory, not arithmetic, takes longer.
    pub memory_binds: bool,
}

impl Limits {
    /// Tries both where a model runs, on a device in the element type that its weights have there.
    ///
    /// Differs: on a CPU the product is of float32, so that bfloat16 pairs and integers may exceed it.
    /// Errors: [`crate::error::Error::Candle`] where a device has no room for it.
    pub fn measure(decoder: &Decoder) -> Result<Self> {
        if decoder.device().is_cpu() {
            return Ok(Self {
                flops: matrix_product(),
                bytes: memory_read(),
            });
        }
        let work = DeviceWork::prepare(decoder.device(), decoder.precision().dtype)?;
        Ok(Self {
            flops: fastest_on(DeviceWork::FLOPS, || work.multiply())?,
            bytes: fastest_on(DeviceWork::BYTES, || work.copy())?,
        })
    }

    /// What so many operations and bytes take if the slower of the two is at its limit.
    pub fn least(&self, flops: f64, bytes: f64) -> Least {
        let memory_binds = bytes / self.bytes.wall > flops / self.flops.wall;
        let (amount, rate) = if memory_binds {
            (bytes, self.bytes)
        } else {
            (flops, self.flops)
        };
        Least {
            seconds: Seconds {
                wall: amount / rate.wall,
                cpu: amount / rate.cpu,
            },
            memory_binds,
        }
    }
}

/// The limits of every turn of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitSpreads {
    /// Float32 matrix product, floating-point operations per second on the wall.
    pub flops_per_s: RepeatSpread,
    /// The same per CPU second.
    pub flops_per_cpu_s: RepeatSpread,
    /// Reading memory, bytes per second on the wall.
    pub bytes_per_s: RepeatSpread,
    /// The same per CPU second.
    pub bytes_per_cpu_s: RepeatSpread,
}

impl LimitSpreads {
    /// `None` where nothing was measured.
    pub fn of(limits: &[Limits]) -> Option<Self> {
        let spread = |of: fn(&Limits) -> f64| RepeatSpread::of(limits.iter().map(of));
        Some(Self {
            flops_per_s: spread(|l| l.flops.wall)?,
            flops_per_cpu_s: spread(|l| l.flops.cpu)?,
            bytes_per_s: spread(|l| l.bytes.wall)?,
            bytes_per_cpu_s: spread(|l| l.bytes.cpu)?,
        })
    }

    /// The best of all turns: what the machine could do when it was least disturbed.
    pub fn best(&self) -> Limits {
        let rate = |wall: &RepeatSpread, cpu: &RepeatSpread| Rate {
            wall: wall.most,
            cpu: cpu.most,
        };
        Limits {
            flops: rate(&self.flops_per_s, &self.flops_per_cpu_s),
            bytes: rate(&self.bytes_per_s, &self.bytes_per_cpu_s),
        }
    }
}

fn matrix_product() -> Rate {
    let fill = |step: usize| -> Vec<f32> {
        let value = |i: usize| (i * step % 31) as f32 / 31.0 - 0.5;
        (0..SIDE * SIDE).map(value).collect()
    };
    let (a, b, mut c) = (fill(7), fill(11), vec![0f32; SIDE * SIDE]);
    fastest(2.0 * (SIDE * SIDE * SIDE) as f64, || {
        product(&a, &b, &mut c);
        black_box(&mut c);
    })
}

/// `c = a b` of square matrices by rows, on all threads.
fn product(a: &[f32], b: &[f32], c: &mut [f32]) {
    let (a, b) = (Operand::rows(a, SIDE), Operand::rows(b, SIDE));
    multiply([SIDE; 3], a, b, c, SIDE, Threads::All);
}

fn memory_read() -> Rate {
    // Written once, so that every page is there.
    let array: Vec<u64> = (0..ARRAY / 8).into_par_iter().map(|i| i as u64).collect();
    let part = array.len().div_ceil(4 * rayon::current_num_threads());
    fastest(ARRAY as f64, || {
        let sums = array.par_chunks(part);
        let sum = |part: &[u64]| part.iter().fold(0u64, |sum, x| sum.wrapping_add(*x));
        black_box(sums.map(sum).reduce(|| 0, u64::wrapping_add));
    })
}

/// As [`fastest`], for work that may fail.
fn fastest_on(amount: f64, mut work: impl FnMut() -> Result<()>) -> Result<Rate> {
    let mut failure = None;
    let rate = fastest(amount, || {
        if failure.is_none() {
            failure = work().err();
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(rate),
    }
}

/// Rate of the fastest try on the wall, and of all tries per CPU second; each try does `amount`, and one
/// before them is not counted.
fn fastest(amount: f64, mut work: impl FnMut()) -> Rate {
    work();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let (mut wall, mut tries) = (0f64, 0f64);
    while start.elapsed() < TRIED || tries == 0.0 {
        let one = Instant::now();
        work();
        wall = wall.max(amount / one.elapsed().as_secs_f64());
        tries += 1.0;
    }
    Rate {
        wall,
        cpu: tries * amount / (cpu_seconds() - cpu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(flops: f64, bytes: f64) -> Limits {
        // Two threads: a CPU second does half of what a second on the wall does.
        let rate = |wall| Rate {
            wall,
            cpu: wall / 2.0,
        };
        Limits {
            flops: rate(flops),
            bytes: rate(bytes),
        }
    }

    #[test]
    fn the_slower_of_the_two_binds() {
        let least = |bytes| limits(100.0, 10.0).least(200.0, bytes);
        let (computing, reading) = (least(10.0), least(50.0));
        assert!(!computing.memory_binds && reading.memory_binds);
        assert_eq!((computing.seconds.wall, computing.seconds.cpu), (2.0, 4.0));
        assert_eq!((reading.seconds.wall, reading.seconds.cpu), (5.0, 10.0));
    }

    #[test]
    fn the_best_turn_is_the_limit() {
        let turns = [limits(5.0, 2.0), limits(7.0, 1.0)];
        assert_eq!(LimitSpreads::of(&turns).unwrap().best(), limits(7.0, 2.0));
        assert!(LimitSpreads::of(&[]).is_none());
    }

    #[test]
    fn the_product_is_a_product() {
        let identity: Vec<f32> = (0..SIDE * SIDE)
            .map(|i| f32::from(u8::from(i / SIDE == i % SIDE)))
            .collect();
        let a: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 97) as f32).collect();
        let mut c = vec![0f32; SIDE * SIDE];
        product(&a, &identity, &mut c);
        assert_eq!(c, a);
    }
}
