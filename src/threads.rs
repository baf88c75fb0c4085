//! How is work shared out? Over the threads that the host granted, the caller's own among them, and no others.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work(job, memory)` for jobs `0..jobs` on up to `threads` threads, the caller's among them, each with a `memory` of its
/// own; gives the results in the order of the jobs. Where the system refuses a thread, the others do its share.
///
/// # Panics
/// Where `work` does.
pub(crate) fn map<M, R: Send>(
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
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, run).ok();
        let others: Vec<_> = (1..threads.clamp(1, jobs.max(1))).filter_map(start).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs_whatever_the_threads() {
        for threads in [0, 1, 2, 7, 100] {
            let found = map(threads, 20, || 0usize, |job, done| (std::mem::replace(done, *done + 1), job * job).1);
            assert_eq!(found, (0..20).map(|job| job * job).collect::<Vec<_>>(), "{threads}");
        }
        assert!(map(3, 0, || (), |job, ()| job).is_empty());
    }
}
