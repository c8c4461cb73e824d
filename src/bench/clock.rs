//! What work costs: seconds on the wall, seconds of CPU, and the most memory.

use std::time::Instant;

use serde::Serialize;

use crate::compute::memory;
use crate::error::Result;

/// How long a piece of work took.
///
/// Units: seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Seconds {
    /// On the wall: what a user waits for, and what a busy machine stretches.
    pub wall: f64,
    /// Of CPU time, user and system, over all threads; NaN where the system does not tell.
    pub cpu: f64,
}

/// Does a piece of work and says how long it took.
///
/// Errors: those of the work.
pub fn timed<R>(work: impl FnOnce() -> Result<R>) -> Result<(R, Seconds)> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let done = work()?;
    let took = Seconds {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
    };
    Ok((done, took))
}

/// CPU seconds that this process has used so far.
#[cfg(unix)]
pub(super) fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole rusage, for which all zeros are a value.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return f64::NAN;
        }
        usage.assume_init()
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[cfg(not(unix))]
pub(super) fn cpu_seconds() -> f64 {
    f64::NAN
}

/// Does a piece of work and says the most memory that the process had meanwhile.
///
/// Units: bytes; `None` where the system cannot forget an earlier peak.
/// Errors: those of the work.
pub(super) fn watched<R>(work: impl FnOnce() -> Result<R>) -> Result<(R, Option<usize>)> {
    memory::return_freed();
    let forgotten = forget_peak();
    let done = work()?;
    let peak = memory::peak_resident_bytes().filter(|_| forgotten);
    Ok((done, peak))
}

/// Sets the process's high-water mark to what it has now; whether that could be done.
fn forget_peak() -> bool {
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_gives_its_result_or_its_error() {
        let (value, took) = timed(|| Ok((0..100_000u64).fold(0, |a, b| a ^ b))).unwrap();
        assert_eq!(
            value,
            100_000 ^ (0..100_000u64).fold(0, |a, b| a ^ b) ^ 100_000
        );
        assert!(took.wall >= 0.0 && (took.cpu >= 0.0 || took.cpu.is_nan()));
        let fails = || Err::<(), _>(crate::error::Error::invalid("work", 0, "none"));
        assert!(timed(fails).is_err() && watched(fails).is_err());
    }
}
