//! What the process tells by `tracing`: those who load do it on a thread of
//! their own, so it is collected for all threads. One test at a time may do so.

use std::{
    fmt,
    sync::{Mutex, OnceLock},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Forgets all, and collects the texts of what is at least so severe from now
/// on. All calls in a process give the same level.
///
/// # Panics
/// Where a test before this one panicked in here.
pub fn from(level: Level) {
    static SUBSCRIBER: OnceLock<()> = OnceLock::new();
    SUBSCRIBER.get_or_init(|| tracing::subscriber::set_global_default(Texts(level)).expect("the first subscriber"));
    SEEN.lock().unwrap().clear();
}

/// The texts since then, which are forgotten.
///
/// # Panics
/// As [`from`].
pub fn seen() -> Vec<String> {
    SEEN.lock().unwrap().drain(..).collect()
}

struct Texts(Level);

impl Subscriber for Texts {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.into())
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Text);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Text;

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            SEEN.lock().unwrap().push(format!("{value:?}"));
        }
    }
}
