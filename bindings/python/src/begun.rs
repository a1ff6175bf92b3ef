//! Futures that are begun on the thread that calls, so that calls keep the
//! order in which Python made them: the runtime's workers take up tasks in
//! any order.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// A future that was polled once.
pub(crate) enum Begun<T> {
    Ready(T),
    Waiting(Pin<Box<dyn Future<Output = T> + Send>>),
}

/// Polls the future once. Where it waits in a queue, it has its place from
/// now on.
pub(crate) fn begin<T>(future: impl Future<Output = T> + Send + 'static) -> Begun<T> {
    let mut future = Box::pin(future);
    // No wake is lost: `finish` polls again.
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Begun::Ready(value),
        Poll::Pending => Begun::Waiting(future),
    }
}

impl<T> Begun<T> {
    pub(crate) async fn finish(self) -> T {
        match self {
            Self::Ready(value) => value,
            Self::Waiting(future) => future.await,
        }
    }
}
