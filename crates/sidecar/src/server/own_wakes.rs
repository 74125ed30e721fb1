//! A connection that wakes itself is polled again at once, and not by way of the scheduler.
//!
//! hyper 1.12 wakes its own task whenever a part of a request's body is taken from it, whether there
//! is more to come or not. The runtime then queues the task and wakes a second thread to share what
//! looks like a backlog: two system calls and a change of processor, which took longer than the whole
//! answer to a check.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Others get their turn after so many polls, whatever a connection does.
const MOST_POLLS: usize = 4;

const POLLED: u8 = 1;
const WOKEN: u8 = 2;

/// Polls one future, and takes note of what wakes it meanwhile.
#[derive(Debug)]
pub(super) struct OwnWakes {
    noted: Arc<Noted>,
    waker: Waker,
}

/// Stands for the task before the future.
#[derive(Debug)]
struct Noted {
    /// [`POLLED`] while the future is, [`WOKEN`] where it is to be polled again.
    state: AtomicU8,
    task: Waker,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & POLLED == 0 {
            self.task.wake_by_ref();
        }
    }
}

impl OwnWakes {
    /// For a future that `task` polls.
    pub(super) fn new(task: &Waker) -> Self {
        let noted = Arc::new(Noted {
            state: AtomicU8::new(0),
            task: task.clone(),
        });
        Self {
            waker: Waker::from(Arc::clone(&noted)),
            noted,
        }
    }

    /// Polls `future` until it waits for somebody else.
    pub(super) fn poll<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        if !self.noted.task.will_wake(context.waker()) {
            *self = Self::new(context.waker());
        }
        for _ in 0..MOST_POLLS {
            self.noted.state.store(POLLED, Ordering::Release);
            let polled = future.as_mut().poll(&mut Context::from_waker(&self.waker));
            let is_woken = self.noted.state.swap(0, Ordering::AcqRel) & WOKEN != 0;
            if polled.is_ready() || !is_woken {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_by_others_and_not_by_itself() {
        let task = Arc::new(Task::default());
        let woken = || task.0.load(Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task));
        let mut context = Context::from_waker(&waker);
        let mut own = OwnWakes::new(Waker::noop());
        let (mut polls, mut kept) = (0, None);
        let mut once = pin!(poll_fn(|context| {
            polls += 1;
            kept = Some(context.waker().clone());
            if polls == 1 {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }));
        assert!(own.poll(once.as_mut(), &mut context).is_pending());
        assert_eq!((polls, woken()), (2, 0));
        kept.unwrap().wake();
        assert_eq!(woken(), 1);
        let mut always = pin!(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(own.poll(always.as_mut(), &mut context).is_pending());
        assert_eq!(woken(), 2, "it goes on after others had their turn");
    }
}
