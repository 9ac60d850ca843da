//! The calls of a worker: what has happened in each, for every connection that asks, and their outcomes until somebody has
//! fetched them.
//!
//! The list has a lock, and what happened in a call has one. No thread holds two locks at once, and how far a call is can be
//! read without any.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Reply;
use super::wire::{self, Answer};
use crate::error::{Error, Kind, Result};
use crate::progress::Event;

/// Outcomes that no client has fetched are kept up to this number and to this many bytes, the newest in any case; the oldest
/// goes first.
const KEPT_OUTCOMES: usize = 64;
const KEPT_BYTES: usize = 1 << 30;
/// Calls that are at work at the same time.
const MOST_AT_WORK: usize = 256;
/// Of what has happened in a call the latest are kept.
const KEPT_EVENTS: usize = 10_000;
/// Ids are hashes in hexadecimal.
const LONGEST_ID: usize = 64;
/// What no frame can hold cannot be sent.
const LARGEST_OUTCOME: usize = 4 << 30;
/// How often a thread that waits for news looks whether it is still asked.
const LOOK: Duration = Duration::from_secs(1);

/// The content of a lock, whatever became of whoever held it last: everything behind these locks is whole at any moment.
pub fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

const AT_WORK: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

pub struct Call {
    id: String,
    state: AtomicU8,
    pub cancelled: AtomicBool,
    happened: Mutex<Happened>,
    more: Condvar,
}

#[derive(Default)]
struct Happened {
    events: VecDeque<Event>,
    /// So many before them are kept no more.
    dropped: usize,
    /// As it travels.
    outcome: Option<Arc<Vec<u8>>>,
}

impl Call {
    fn new(id: &str) -> Arc<Self> {
        let (state, cancelled) = (AtomicU8::new(AT_WORK), AtomicBool::new(false));
        Arc::new(Self { id: id.to_string(), state, cancelled, happened: Mutex::default(), more: Condvar::new() })
    }

    /// One that is not begun and stands in no list.
    pub fn refused(id: &str, error: Error) -> Arc<Self> {
        let call = Self::new(&id.chars().take(LONGEST_ID).collect::<String>());
        call.finish(Err(error));
        call
    }

    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::SeqCst) != AT_WORK
    }

    /// Whether whoever asks now would not get what was asked for.
    fn is_spoilt(&self) -> bool {
        self.state.load(Ordering::SeqCst) == FAILED || self.cancelled.load(Ordering::SeqCst)
    }

    pub fn add(&self, event: Event) {
        let mut happened = locked(&self.happened);
        happened.events.push_back(event);
        if happened.events.len() > KEPT_EVENTS {
            happened.events.pop_front();
            happened.dropped += 1;
        }
        drop(happened);
        self.more.notify_all();
    }

    pub fn finish(&self, outcome: std::result::Result<Reply, Error>) {
        let state = if outcome.is_ok() { DONE } else { FAILED };
        let id = self.id.clone();
        let frame = wire::frame(&Answer::Outcome { id: id.clone(), outcome });
        let whole = frame.and_then(|frame| match frame.len() {
            0..=LARGEST_OUTCOME => Ok(frame),
            length => Err(Error::unsupported(format!("the result has {length} bytes, more than can be sent"))
                .hint("ask for less at a time: fewer sequences")),
        });
        let (frame, state) = match whole {
            Ok(frame) => (frame, state),
            Err(error) => (wire::frame(&Answer::Outcome { id, outcome: Err(error) }).unwrap_or_default(), FAILED),
        };
        locked(&self.happened).outcome = Some(Arc::new(frame));
        self.state.store(state, Ordering::SeqCst);
        self.more.notify_all();
    }

    /// Bytes that its outcome takes.
    fn size(&self) -> usize {
        locked(&self.happened).outcome.as_ref().map_or(0, |outcome| outcome.len())
    }

    /// Gives everything that happens after the first `seen` events to `send`, the outcome last; ends when `send` fails and
    /// when it is asked no more.
    pub fn tell(&self, seen: usize, asked: &AtomicBool, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut next = seen;
        loop {
            let mut happened = locked(&self.happened);
            let (events, outcome) = loop {
                // A client may have seen more: of a worker before this one.
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
pub struct Calls {
    /// In the order in which they began.
    known: Mutex<Vec<Arc<Call>>>,
}

/// What `Calls::join` gives.
pub enum Joined {
    /// It is at work already, or done.
    Known(Arc<Call>),
    /// The caller is to carry it out.
    New(Arc<Call>),
}

impl Calls {
    pub fn find(&self, id: &str) -> Option<Arc<Call>> {
        locked(&self.known).iter().find(|call| call.id == id).cloned()
    }

    /// The call with this id. A `fresh` one joins none that has failed or is being stopped.
    pub fn join(&self, id: &str, fresh: bool) -> Result<Joined> {
        if id.len() > LONGEST_ID {
            return Err(Error::bad_argument(format!("the id of a call has at most {LONGEST_ID} bytes")));
        }
        let mut known = locked(&self.known);
        if fresh {
            known.retain(|call| call.id != id || !call.is_spoilt());
        }
        if let Some(call) = known.iter().find(|call| call.id == id) {
            return Ok(Joined::Known(call.clone()));
        }
        if known.iter().filter(|call| !call.is_done()).count() >= MOST_AT_WORK {
            let message = format!("the worker has {MOST_AT_WORK} calls at work, and takes no more");
            return Err(Error::new(Kind::Service, message).hint("do fewer things at a time: `max` of `parallel`"));
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

    /// Its outcome has been fetched. A call that is at work stays: it must be found when it is to stop.
    pub fn forget(&self, id: &str) {
        locked(&self.known).retain(|call| call.id != id || !call.is_done());
    }

    /// Lets go of the oldest outcomes until the others are not too large together.
    pub fn tidy(&self) {
        let done: Vec<_> = locked(&self.known).iter().filter(|call| call.is_done()).cloned().collect();
        let mut total = 0;
        for (age, call) in done.iter().rev().enumerate() {
            total += call.size();
            if age > 0 && total > KEPT_BYTES {
                locked(&self.known).retain(|known| !Arc::ptr_eq(known, call));
            }
        }
    }

    /// Ids of those at work.
    pub fn at_work(&self) -> Vec<String> {
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
