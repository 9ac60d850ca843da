//! The calls of a worker: the events of each, for every connection that follows it, and their
//! outcomes until they are fetched.
//!
//! The list has a lock, and the events of each call have one. No thread holds two locks, and the
//! progress of a call can be read without a lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::failure::Failure;
use super::op::Reply;
use super::wire::{self, Answer};
use crate::error::{Error, Result};
use crate::progress::Event;

/// Limits of outcomes that no client has fetched, in number and bytes. The newest is always kept,
/// and the oldest is dropped first.
const KEPT_OUTCOMES: usize = 64;
const KEPT_BYTES: usize = 1 << 30;
/// The largest number of running calls.
const MOST_AT_WORK: usize = 256;
/// The largest number of events that are kept per call, the latest ones.
const KEPT_EVENTS: usize = 10_000;
/// Ids are hexadecimal hashes.
const LONGEST_ID: usize = 64;
/// Larger outcomes do not fit into a frame.
const LARGEST_OUTCOME: usize = 4 << 30;
/// How often a waiting thread checks whether its client is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Locks a mutex even if it is poisoned: the data behind these locks is valid at every moment.
pub(super) fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

const AT_WORK: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

pub(super) struct Call {
    id: String,
    state: AtomicU8,
    pub cancelled: AtomicBool,
    happened: Mutex<Happened>,
    more: Condvar,
}

#[derive(Default)]
struct Happened {
    events: VecDeque<Event>,
    /// Number of older events that were dropped.
    dropped: usize,
    /// The encoded outcome.
    outcome: Option<Arc<Vec<u8>>>,
}

impl Call {
    fn new(id: &str) -> Arc<Self> {
        let (state, cancelled) = (AtomicU8::new(AT_WORK), AtomicBool::new(false));
        Arc::new(Self { id: id.to_string(), state, cancelled, happened: Mutex::default(), more: Condvar::new() })
    }

    /// A call that is refused and is not in the list.
    pub(super) fn refused(id: &str, error: Error) -> Arc<Self> {
        let call = Self::new(&id.chars().take(LONGEST_ID).collect::<String>());
        call.finish(Err(error));
        call
    }

    pub(super) fn is_done(&self) -> bool {
        self.state.load(Ordering::SeqCst) != AT_WORK
    }

    /// True if a new client would not get a result.
    fn is_spoilt(&self) -> bool {
        self.state.load(Ordering::SeqCst) == FAILED || self.cancelled.load(Ordering::SeqCst)
    }

    pub(super) fn add(&self, event: Event) {
        let mut happened = locked(&self.happened);
        happened.events.push_back(event);
        if happened.events.len() > KEPT_EVENTS {
            happened.events.pop_front();
            happened.dropped += 1;
        }
        drop(happened);
        self.more.notify_all();
    }

    pub(super) fn finish(&self, outcome: std::result::Result<Reply, Error>) {
        let state = if outcome.is_ok() { DONE } else { FAILED };
        let id = self.id.clone();
        let frame = wire::frame(&Answer::Outcome { id: id.clone(), outcome });
        let whole = frame.and_then(|frame| match frame.len() {
            0..=LARGEST_OUTCOME => Ok(frame),
            bytes => Err(Error::of(Failure::ResultTooLong { bytes })),
        });
        let (frame, state) = match whole {
            Ok(frame) => (frame, state),
            Err(error) => (wire::frame(&Answer::Outcome { id, outcome: Err(error) }).unwrap_or_default(), FAILED),
        };
        locked(&self.happened).outcome = Some(Arc::new(frame));
        self.state.store(state, Ordering::SeqCst);
        self.more.notify_all();
    }

    /// Size of its outcome in bytes.
    fn size(&self) -> usize {
        locked(&self.happened).outcome.as_ref().map_or(0, |outcome| outcome.len())
    }

    /// Passes all events after the first `seen` to `send`, and finally the outcome. Ends if `send`
    /// fails, or when `asked` becomes false.
    pub(super) fn tell(
        &self,
        seen: usize,
        asked: &AtomicBool,
        mut send: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut next = seen;
        loop {
            let mut happened = locked(&self.happened);
            let (events, outcome) = loop {
                // A client may have seen more events, from an earlier worker.
                let from = next.saturating_sub(happened.dropped).min(happened.events.len());
                if from < happened.events.len() || happened.outcome.is_some() {
                    next = happened.dropped + happened.events.len();
                    break (happened.events.range(from..).cloned().collect::<Vec<_>>(), happened.outcome.clone());
                }
                if !asked.load(Ordering::SeqCst) {
                    return Ok(());
                }
                next = happened.dropped + from;
                happened = self.more.wait_timeout(happened, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            };
            drop(happened);
            for event in events {
                send(&wire::frame(&Answer::Event { id: self.id.clone(), event })?)?;
            }
            if let Some(outcome) = outcome {
                return send(&outcome);
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Calls {
    /// In the order in which they began.
    known: Mutex<Vec<Arc<Call>>>,
}

/// The result of `Calls::join`.
pub(super) enum Joined {
    /// It is running, or done.
    Known(Arc<Call>),
    /// The caller must run it.
    New(Arc<Call>),
}

impl Calls {
    pub(super) fn find(&self, id: &str) -> Option<Arc<Call>> {
        locked(&self.known).iter().find(|call| call.id == id).cloned()
    }

    /// The call with this id. A `fresh` request does not join a call that has failed or is being
    /// stopped.
    pub(super) fn join(&self, id: &str, fresh: bool) -> Result<Joined> {
        if id.len() > LONGEST_ID {
            return Err(Error::of(Failure::IdTooLong { most: LONGEST_ID }));
        }
        let mut known = locked(&self.known);
        if fresh {
            known.retain(|call| call.id != id || !call.is_spoilt());
        }
        if let Some(call) = known.iter().find(|call| call.id == id) {
            return Ok(Joined::Known(call.clone()));
        }
        if known.iter().filter(|call| !call.is_done()).count() >= MOST_AT_WORK {
            return Err(Error::of(Failure::TooManyCalls { most: MOST_AT_WORK }));
        }
        while known.len() >= KEPT_OUTCOMES
            && let Some(oldest) = known.iter().position(|call| call.is_done())
        {
            known.remove(oldest);
        }
        let call = Call::new(id);
        known.push(call.clone());
        Ok(Joined::New(call))
    }

    /// Drops an outcome that was fetched. A running call stays, so that it can be stopped.
    pub(super) fn forget(&self, id: &str) {
        locked(&self.known).retain(|call| call.id != id || !call.is_done());
    }

    /// Drops the oldest outcomes beyond the limits.
    pub(super) fn tidy(&self) {
        let done: Vec<_> = locked(&self.known).iter().filter(|call| call.is_done()).cloned().collect();
        let mut total = 0;
        for (age, call) in done.iter().rev().enumerate() {
            total += call.size();
            if age > 0 && total > KEPT_BYTES {
                locked(&self.known).retain(|known| !Arc::ptr_eq(known, call));
            }
        }
    }

    /// Ids of the running calls.
    pub(super) fn at_work(&self) -> Vec<String> {
        locked(&self.known).iter().filter(|call| !call.is_done()).map(|call| call.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(call: &Call, seen: usize) -> Vec<String> {
        let mut all = Vec::new();
        call.tell(seen, &AtomicBool::new(true), |frame| {
            all.push(match wire::receive_up_to::<Answer>(&mut &frame[..], frame.len())? {
                Answer::Event { event: Event::Warning(text), .. } => text,
                Answer::Outcome { outcome: Err(error), .. } => error.message,
                other => format!("{other:?}"),
            });
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn what_has_happened_is_kept_up_to_a_number() {
        let call = Call::new("x");
        for number in 0..KEPT_EVENTS + 5 {
            call.add(Event::Warning(number.to_string()));
        }
        call.finish(Err(Error::interrupted()));
        let all = told(&call, 0);
        assert_eq!((all.len(), all[0].as_str(), all[KEPT_EVENTS].as_str()), (KEPT_EVENTS + 1, "5", "interrupted"));
        assert_eq!(
            told(&call, KEPT_EVENTS + 3),
            [(KEPT_EVENTS + 3).to_string(), (KEPT_EVENTS + 4).to_string(), all[KEPT_EVENTS].clone()]
        );
        assert_eq!(told(&call, usize::MAX), ["interrupted"]);
    }

    #[test]
    fn a_call_at_work_is_not_forgotten_and_calls_have_a_number() {
        let calls = Calls::default();
        for number in 0..MOST_AT_WORK {
            assert!(matches!(calls.join(&number.to_string(), true), Ok(Joined::New(_))));
        }
        assert!(matches!(calls.join("0", false), Ok(Joined::Known(_))));
        assert!(calls.join("more", true).is_err() && calls.join(&"x".repeat(LONGEST_ID + 1), true).is_err());
        calls.forget("7");
        assert_eq!(calls.at_work().len(), MOST_AT_WORK);
        calls.find("7").unwrap().finish(Err(Error::interrupted()));
        calls.forget("7");
        assert!(calls.find("7").is_none() && calls.join("more", true).is_ok());
    }
}
