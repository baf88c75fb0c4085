//! Jobs on the granted threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work(job, memory)` for jobs `0..jobs` on up to `threads` threads, each with a `memory` of its own; gives the results
/// in the order of the jobs.
pub(crate) fn parallel<M, R: Send>(
    threads: usize,
    jobs: usize,
    memory: impl Fn() -> M + Sync,
    work: impl Fn(usize, &mut M) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut memory = memory();
        let mut done = Vec::new();
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= jobs {
                return done;
            }
            done.push((job, work(job, &mut memory)));
        }
    };
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.clamp(1, jobs.max(1))).map(|_| scope.spawn(run)).collect();
        let mut parts = run();
        for other in others {
            match other.join() {
                Ok(more) => parts.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    });
    parts.sort_by_key(|(job, _)| *job);
    parts.into_iter().map(|(_, result)| result).collect()
}
