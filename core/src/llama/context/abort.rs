//! The check that can stop a decode, and how often it is made. llama.cpp calls
//! back after each node of the graph, a thousand times a step, on the thread
//! that decodes. To ask the clock and look at all requests as often would take
//! some hundredths of a step, so while nodes are short only some calls do.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// See the module.
pub(super) struct AbortCheck {
    /// Says at a given time whether the decode under way should stop.
    check: Box<dyn FnMut(Instant) -> bool>,
    looks: Looks,
}

impl AbortCheck {
    pub(super) fn new(check: impl FnMut(Instant) -> bool + 'static) -> Self {
        Self { check: Box::new(check), looks: Looks::new(Instant::now()) }
    }

    fn should_stop(&mut self) -> bool {
        self.looks.is_due(Instant::now).is_some_and(|now| (self.check)(now))
    }
}

/// After which nodes the check is made.
struct Looks {
    /// So many nodes lie between two looks.
    every: u32,
    /// So many are left until the next one.
    left: u32,
    last: Instant,
}

impl Looks {
    /// Most nodes between two looks: less than a layer has, so that a look is
    /// never far, should nodes take longer all at once.
    const MOST: u32 = 16;

    /// What is to lie between two looks, or up to four times as much.
    const BETWEEN: Duration = Duration::from_micros(50);

    fn new(now: Instant) -> Self {
        Self { every: 1, left: 1, last: now }
    }

    /// A node was computed. The time, if it is time for a look.
    fn is_due(&mut self, clock: impl FnOnce() -> Instant) -> Option<Instant> {
        self.left -= 1;
        if self.left > 0 {
            return None;
        }
        let now = clock();
        let since = now.saturating_duration_since(self.last);
        if since < Self::BETWEEN {
            self.every = (2 * self.every).min(Self::MOST);
        } else if since > 4 * Self::BETWEEN {
            // Also when a step begins.
            self.every = 1;
        }
        (self.left, self.last) = (self.every, now);
        Some(now)
    }
}

/// llama.cpp's callback. `data` is an [`AbortCheck`] that nobody else uses
/// meanwhile.
pub(super) unsafe extern "C" fn on_node(data: *mut c_void) -> bool {
    // SAFETY: so says the caller, `Context::with_pool`.
    let abort = unsafe { &mut *data.cast::<AbortCheck>() };
    catch_unwind(AssertUnwindSafe(|| abort.should_stop())).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many looks there are at so many nodes that take so long each.
    fn looks_at(nodes: u32, each: Duration, looks: &mut Looks, now: &mut Instant) -> u32 {
        let mut n = 0;
        for _ in 0..nodes {
            *now += each;
            n += u32::from(looks.is_due(|| *now).is_some());
        }
        n
    }

    #[test]
    fn short_nodes_are_looked_at_together_and_long_ones_one_by_one() {
        let mut now = Instant::now();
        let mut looks = Looks::new(now);
        // 1, 2, 4, 8 and 16 nodes, and then 16 each time.
        assert_eq!(looks_at(1 + 2 + 4 + 8 + 16, Duration::from_micros(1), &mut looks, &mut now), 5);
        assert_eq!(looks_at(160, Duration::from_micros(1), &mut looks, &mut now), 10);
        // The first long ones are seen together.
        assert_eq!(looks_at(16, Duration::from_millis(5), &mut looks, &mut now), 1);
        assert_eq!(looks_at(50, Duration::from_millis(5), &mut looks, &mut now), 50);
        // What lies between stays as it is.
        let mut looks = Looks { every: 4, left: 4, last: now };
        assert_eq!(looks_at(400, Duration::from_micros(20), &mut looks, &mut now), 100);
    }

    #[test]
    fn a_check_that_panics_stops_the_decode() {
        let mut abort = AbortCheck::new(|_| panic!("a mistake in the check"));
        // SAFETY: nobody else uses it.
        assert!(unsafe { on_node((&raw mut abort).cast()) });
        let mut abort = AbortCheck::new(|_| false);
        // SAFETY: as above.
        assert!(!unsafe { on_node((&raw mut abort).cast()) });
    }
}
