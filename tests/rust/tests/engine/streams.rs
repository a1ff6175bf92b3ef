//! Streams and their readers.

use futures_util::{Stream, StreamExt};
use mullama::{FinishReason, TokenStream};
use mullama_tests::{exactly, options, run, tiny};
use std::{
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// A reader as an event loop is one: it sleeps until it is woken.
#[derive(Default)]
struct Reader {
    is_woken: Mutex<bool>,
    wakes: Condvar,
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap() = true;
        self.wakes.notify_one();
    }
}

impl Reader {
    /// Takes all that is there at each wake. Gives how many tokens each found.
    fn read(self: &Arc<Self>, mut stream: Pin<&mut TokenStream>) -> Vec<usize> {
        let waker = Waker::from(self.clone());
        let mut found = vec![0];
        loop {
            match stream.as_mut().poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(token)) => {
                    token.unwrap();
                    *found.last_mut().unwrap() += 1;
                }
                Poll::Ready(None) => return found,
                Poll::Pending => {
                    let is_woken = self.is_woken.lock().unwrap();
                    let (mut is_woken, waited) = self
                        .wakes
                        .wait_timeout_while(is_woken, Duration::from_secs(30), |is_woken| !*is_woken)
                        .unwrap();
                    assert!(!waited.timed_out(), "nobody wakes the reader, who found {found:?}");
                    *is_woken = false;
                    found.push(0);
                }
            }
        }
    }
}

#[test]
fn cancelling_a_stream_ends_it_without_an_error() {
    run(async {
        let tiny = tiny(options()).await;
        let mut stream = tiny.model.generate_stream("a", exactly(1000)).await.unwrap();
        stream.next().await.unwrap().unwrap();
        stream.cancel();
        while let Some(token) = stream.next().await {
            token.unwrap();
        }
        assert_eq!(stream.finish_reason(), Some(FinishReason::Cancelled));
        assert!(stream.usage().completion_tokens < 1000);
    });
}

#[test]
fn a_slow_reader_pauses_its_own_sequence_and_no_other() {
    run(async {
        let tiny = tiny(options()).await;
        let slow = tiny.model.generate_stream("slow", exactly(200).buffer_size(4)).await.unwrap();
        let quick = tiny.model.generate_with("quick", exactly(150)).await.unwrap();
        assert_eq!(quick.tokens.len(), 150);
        assert_eq!(slow.usage().completion_tokens, 4, "the slow one stopped at its buffer");
        let steps = tiny.model.metrics().steps;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(tiny.model.metrics().steps, steps, "nothing spins while all are paused");
        assert_eq!(slow.collect::<Vec<_>>().await.len(), 200, "it goes on when it is read, and loses nothing");
    });
}

#[test]
fn a_stream_keeps_the_engine_when_the_model_is_dropped() {
    run(async {
        let tiny = tiny(options()).await;
        let stream = tiny.model.generate_stream("a", exactly(40)).await.unwrap();
        drop(tiny);
        let tokens: Vec<_> = stream.collect().await;
        assert_eq!(tokens.len(), 40);
        assert!(tokens.iter().all(Result::is_ok));
    });
}

#[test]
fn a_reader_is_woken_for_several_tokens_of_short_steps() {
    run(async {
        let tiny = tiny(options()).await;
        let read = |n_tokens: usize| {
            let model = tiny.model.clone();
            async move {
                let mut stream = model.generate_stream(&format!("{n_tokens}"), exactly(n_tokens)).await.unwrap();
                let read = move || Arc::new(Reader::default()).read(Pin::new(&mut stream));
                tokio::task::spawn_blocking(read).await.unwrap()
            }
        };
        let (long, short) = tokio::join!(read(400), read(300));
        for (found, n_tokens) in [(long, 400), (short, 300)] {
            assert_eq!(found.iter().sum::<usize>(), n_tokens);
            // The steps take some tenths of a millisecond.
            assert!(found.len() < n_tokens / 2, "{found:?}");
        }
    });
}

#[test]
fn the_reader_of_a_small_buffer_is_always_woken() {
    run(async {
        let tiny = tiny(options()).await;
        let mut stream = tiny.model.generate_stream("a", exactly(100).buffer_size(4)).await.unwrap();
        let read = move || Arc::new(Reader::default()).read(Pin::new(&mut stream));
        let found = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!(found.iter().sum::<usize>(), 100);
    });
}
