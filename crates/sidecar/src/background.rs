//! Work that must not keep a check from its answer, nor the app beside from asking.
//!
//! A check takes some tens of microseconds of a thread that slept before. On a busy machine that
//! thread waits until whoever runs has had his time, and Linux gives everybody milliseconds. So what
//! takes long runs on threads of lower priority: whoever wakes up meanwhile runs first, and where
//! there is too much to do they get a [`Share`] of what others get. One of 100 times a thread that
//! worked 0.3 ms of every 1.5 had to wait 3.7 ms for one that was never idle, and 0.2 ms where that
//! one had nice value 10 (Linux 6.18). A longer slice (`sched_setattr(2)`) is no way: who is
//! interrupted then waits for all of it.

use std::future::Future;
use std::thread;

use tokio::runtime::{self, Runtime};
use tokio::task::{JoinHandle, JoinSet};

/// How much less of a busy machine a thread gets than one that has the usual nice value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// A third: verdicts are to be followed, and events sent, where there is too much to do as well.
    Third,
    /// A tenth: what one client causes.
    Tenth,
}

impl Share {
    /// A step of nice is a fifth (sched(7)).
    #[cfg(target_os = "linux")]
    fn nice(self) -> i32 {
        match self {
            Self::Third => 5,
            Self::Tenth => 10,
        }
    }
}

/// From now on this thread, and those that it starts, let others go first. There is no way back.
pub fn let_others_go_first(share: Share) {
    // Of those that wake up, these do not interrupt others.
    #[cfg(target_os = "linux")]
    scheduler::ask_for(nix::libc::SCHED_BATCH, share.nice(), scheduler::USUAL_SLICE);
    #[cfg(not(target_os = "linux"))]
    let _ = share;
}

/// From now on this thread, and those that it starts, interrupt who runs when they wake up: they ask
/// for the processor in the shortest turns there are, so Linux (6.12 and later) gives them theirs
/// sooner. Their share of a busy machine stays the same.
pub fn answer_at_once() {
    #[cfg(target_os = "linux")]
    scheduler::ask_for(
        nix::libc::SCHED_OTHER,
        scheduler::own_nice(),
        scheduler::SHORTEST_SLICE,
    );
}

#[cfg(target_os = "linux")]
mod scheduler {
    use nix::libc;

    /// In nanoseconds; 0 stands for what the system gives everybody.
    pub(super) const USUAL_SLICE: u64 = 0;
    pub(super) const SHORTEST_SLICE: u64 = 100_000;

    /// `struct sched_attr` (sched_setattr(2)) in its first size, which every kernel knows.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }

    /// The nice value of this thread.
    #[allow(unsafe_code)]
    pub(super) fn own_nice() -> i32 {
        // SAFETY: it reads a number; thread 0 is this one.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    /// Changes this thread.
    #[allow(unsafe_code)]
    pub(super) fn ask_for(policy: i32, nice: i32, runtime: u64) {
        let size = size_of::<Attributes>();
        let wanted = Attributes {
            size: size as u32,
            policy: policy.cast_unsigned(),
            flags: 0,
            nice,
            priority: 0,
            runtime,
            deadline: 0,
            period: 0,
        };
        let wanted = &raw const wanted;
        // SAFETY: the kernel reads `size` bytes of it and keeps nothing; thread 0 is this one.
        let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, wanted, 0) } != 0;
        if refused {
            // A sandbox that forbids it: everything works, and a busy machine is felt more.
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "threads keep their usual priority");
        }
    }
}

/// Runs `start` on a thread that lets others go first. So do all threads that it starts, those of
/// Kafka's client included.
pub(crate) fn started<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    let start = || {
        let_others_go_first(Share::Third);
        start()
    };
    let joined = thread::scope(|scope| scope.spawn(start).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Threads for requests that take long.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// # Panics
    /// Where the system has no threads left.
    pub(crate) fn start() -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(|| let_others_go_first(Share::Tenth))
            .enable_all()
            .build();
        Self(Some(runtime.expect("the system starts threads")))
    }

    /// Does `work` there. It ends early where the caller does not wait for it any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let runtime = self.0.as_ref().expect("it is taken when dropped");
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, runtime.handle());
        let ended = tasks.join_next().await.expect("one was spawned");
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

impl Background {
    /// Does `work` there, to its end even where the caller does not wait for it any more.
    pub(crate) fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let runtime = self.0.as_ref().expect("it is taken when dropped");
        runtime.spawn(work)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The last owner may be a task of another runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;

    use super::*;

    /// Of the calling thread, by proc(5).
    fn nice() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn threads_that_the_background_starts_let_others_go_first_and_nobody_else_does() {
        let inherited = started(|| thread::spawn(nice).join().unwrap());
        assert_eq!((inherited, nice()), (Share::Third.nice(), 0));
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_ends() {
        let background = Background::start();
        assert_eq!(background.run(async { nice() }).await, Share::Tenth.nice());
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        let request = background.run(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        let waited = tokio::time::timeout(std::time::Duration::from_millis(10), request);
        assert!(waited.await.is_err());
        assert!(ended.await.is_err(), "the work was given up");
    }
}
