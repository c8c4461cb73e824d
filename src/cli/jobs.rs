//! Several prompts at once, where one cannot keep all cores busy.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;

/// How many prompts are worked on at once.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct JobArguments {
    /// Prompts to work on at once, each with its share of the threads and memory of its own; no result changes
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

impl JobArguments {
    /// Refuses a number that nothing can be done with.
    pub fn check(self) -> anyhow::Result<()> {
        let threads = rayon::current_num_threads();
        anyhow::ensure!(
            (1..=threads).contains(&self.jobs),
            "--jobs is {}, between 1 and the {threads} threads of this machine are possible",
            self.jobs
        );
        Ok(())
    }

    /// How many of so many prompts are worked on at once.
    pub fn at_once(self, prompts: usize) -> usize {
        self.jobs.min(prompts).max(1)
    }

    /// Whether every prompt has the machine to itself.
    pub fn one_by_one(self) -> bool {
        self.jobs == 1
    }

    /// Runs `work` for every index; after a failure no further one is begun, and the first is returned.
    pub fn run(
        self,
        indices: &[usize],
        work: &(dyn Fn(usize) -> anyhow::Result<()> + Sync),
    ) -> anyhow::Result<()> {
        if self.jobs == 1 || indices.len() < 2 {
            return indices.iter().try_for_each(|&index| work(index));
        }
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(usize, anyhow::Error)>> = Mutex::new(None);
        let fail = |place: usize, error: anyhow::Error| {
            next.store(indices.len(), Ordering::SeqCst);
            let mut first = failed.lock().unwrap_or_else(|e| e.into_inner());
            if first.as_ref().is_none_or(|(earlier, _)| place < *earlier) {
                *first = Some((place, error));
            }
        };
        let jobs = self.jobs.min(indices.len());
        let threads = (rayon::current_num_threads() / jobs).max(1);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                    let pool = match pool.build().context("starting threads for --jobs") {
                        Ok(pool) => pool,
                        Err(error) => return fail(0, error),
                    };
                    loop {
                        let place = next.fetch_add(1, Ordering::SeqCst);
                        let Some(&index) = indices.get(place) else {
                            return;
                        };
                        let stop = StopOnPanic {
                            next: &next,
                            end: indices.len(),
                        };
                        let done = pool.install(|| work(index));
                        std::mem::forget(stop);
                        if let Err(error) = done {
                            return fail(place, error);
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// Lets no further prompt begin if the one at work panics.
struct StopOnPanic<'a> {
    next: &'a AtomicUsize,
    end: usize,
}

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        self.next.store(self.end, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_or_a_panic_nothing_further_is_begun() {
        let jobs = JobArguments { jobs: 2 };
        let begun = AtomicUsize::new(0);
        let failing = |index: usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            anyhow::ensure!(index > 0, "bad");
            // Long enough in all that the failure is noticed far before the end.
            (0..1000).for_each(|_| std::hint::spin_loop());
            Ok(())
        };
        let indices: Vec<usize> = (0..1_000_000).collect();
        assert!(jobs.run(&indices, &failing).is_err());
        assert!(begun.load(Ordering::SeqCst) < 1_000_000);
        begun.store(0, Ordering::SeqCst);
        let panicking = |index: usize| {
            assert!(index > 0, "a bug");
            failing(index)
        };
        let run = std::panic::catch_unwind(|| jobs.run(&indices, &panicking));
        assert!(run.is_err());
        assert!(begun.load(Ordering::SeqCst) < 1_000_000);
    }

    #[test]
    fn every_index_is_worked_on_once_and_the_first_failure_returned() {
        for jobs in [1, 2, 5] {
            let seen = Mutex::new(Vec::new());
            let jobs = JobArguments { jobs };
            let work = |index: usize| {
                seen.lock().unwrap().push(index);
                Ok(())
            };
            jobs.run(&[3, 1, 4, 15, 9], &work).unwrap();
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, [1, 3, 4, 9, 15]);
            jobs.run(&[], &|_| anyhow::bail!("never called")).unwrap();
            let failing = |index: usize| match index {
                0 => anyhow::bail!("prompt {index} is bad"),
                _ => Ok(()),
            };
            let error = jobs.run(&[0, 7, 8], &failing).unwrap_err();
            assert_eq!(error.to_string(), "prompt 0 is bad");
        }
    }

    #[test]
    fn numbers_of_jobs_are_bounded() {
        assert!(JobArguments { jobs: 0 }.check().is_err());
        assert!(JobArguments { jobs: 1 }.check().is_ok());
        assert!(JobArguments { jobs: 1 << 20 }.check().is_err());
    }
}
