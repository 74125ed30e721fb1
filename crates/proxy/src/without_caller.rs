//! Calls whose callers go away: neither the call nor its metering is cut with them.
//!
//! A call runs in the task of its connection, and in one of its own only once the connection is gone:
//! a task for each cost a wake-up of a second thread.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

/// For how long an upstream is waited for whose caller has gone; reservations last as long. The call
/// is charged by estimate then.
const LONGEST: Duration = Duration::from_secs(600);

/// A call that goes on for a while when it is dropped before its end.
pub(crate) struct WithoutCaller<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> WithoutCaller<F> {
    pub(crate) fn new(call: F) -> Self {
        Self(Some(Box::pin(call)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for WithoutCaller<F> {
    /// `None` where it panicked.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Some(call) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        let answer = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(answer)) => Some(answer),
            Err(_) => None,
        };
        self.0 = None;
        Poll::Ready(answer)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for WithoutCaller<F> {
    fn drop(&mut self) {
        // Without a runtime the process is going down.
        if let (Some(call), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { drop(timeout(LONGEST, call).await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_call_goes_on_without_its_caller_and_a_panic_is_no_answer() {
        let (answer, upstream) = oneshot::channel::<u8>();
        let (done, ended) = oneshot::channel();
        let mut call = WithoutCaller::new(async move {
            let answer = upstream.await.unwrap();
            done.send(answer).unwrap();
            answer
        });
        let waited = timeout(Duration::from_millis(1), &mut call);
        assert!(waited.await.is_err());
        drop(call);
        answer.send(7).unwrap();
        assert_eq!(ended.await, Ok(7));
        assert_eq!(WithoutCaller::new(async { 8 }).await, Some(8));
        let failing = WithoutCaller::new(async { panic!("as it may") });
        let answer: Option<()> = failing.await;
        assert_eq!(answer, None);
    }
}
