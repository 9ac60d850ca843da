//! Prefetching of weights: portions are requested by name, several threads read their tensors in
//! the order of the requests, and a queue bounded in bytes holds them.
//!
//! Weights in the queue never exceed the budget, with two exceptions: one portion is always
//! allowed, and a portion that the pass waits for is read in any case.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::checkpoint::Checkpoint;
use super::load::Loader;
use crate::error::{Error, Result};
use crate::spec::inventory::Part;
use crate::tensor::{Device, Tensor};
use crate::threads;

/// Number of tensors that are read at the same time: enough to keep a disk or network link busy
/// while one of them is being checked.
pub const THREADS: usize = 4;

/// The name of a portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Portion {
    /// All weights of a layer but those of the routed experts.
    Core(usize),
    Expert {
        layer: usize,
        expert: usize,
    },
    FinalNorm,
}

/// Times of a run, seen from the forward pass and from the reading threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The forward pass waited for weights.
    pub waited_for_weights: Duration,
    /// At least one read (or conversion) was in flight.
    pub reading: Duration,
    /// There were requests and nothing could be read, because the queue was full.
    pub waited_for_room: Duration,
}

/// A portion that is requested and not taken yet.
struct Pending {
    bytes: usize,
    unfinished: usize,
    /// For each weight, one tensor per device.
    tensors: Vec<Vec<Tensor>>,
    failure: Option<Error>,
}

#[derive(Default)]
struct State {
    /// Weights that are not started, in order, with their positions in their portions.
    queue: VecDeque<(Portion, usize, Part)>,
    portions: HashMap<Portion, Pending>,
    /// Bytes of weights that are started or read, and not taken yet.
    waiting: usize,
    /// Number of weights being read.
    in_flight: usize,
    /// The portion whose weights may be started, because the queue has space for all of it.
    admitted: Option<Portion>,
    /// The portion that the pass waits for.
    wanted: Option<Portion>,
    closed: bool,
    /// The state since `since`.
    phase: Phase,
    since: Option<Instant>,
    reading: Duration,
    waited_for_room: Duration,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// Nothing to read.
    #[default]
    Idle,
    Reading,
    Full,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a portion is requested or taken.
    work: Condvar,
    /// Signalled when a portion is complete.
    complete: Condvar,
    budget: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }
}

impl State {
    /// The next weight, if there is one and the queue has space for its portion.
    fn begin(&mut self, budget: usize) -> Option<(Portion, usize, Part)> {
        let portion = self.queue.front()?.0;
        if self.admitted != Some(portion) {
            let bytes = self.portions.get(&portion).map_or(0, |pending| pending.bytes);
            let waits = |wanted| self.portions.get(&wanted).is_some_and(|pending| pending.unfinished > 0);
            let starved = self.in_flight == 0 && self.wanted.is_some_and(waits);
            if self.waiting > 0 && self.waiting + bytes > budget && !starved {
                return None;
            }
            self.waiting += bytes;
            self.admitted = Some(portion);
        }
        self.in_flight += 1;
        self.queue.pop_front()
    }

    /// Adds the time since the last change to the counter of the state.
    fn book(&mut self) {
        let now = Instant::now();
        let elapsed = self.since.map_or(Duration::ZERO, |since| now - since);
        match self.phase {
            Phase::Idle => (),
            Phase::Reading => self.reading += elapsed,
            Phase::Full => self.waited_for_room += elapsed,
        }
        self.since = Some(now);
        self.phase = match (self.in_flight, self.queue.is_empty()) {
            (0, true) => Phase::Idle,
            (0, false) => Phase::Full,
            _ => Phase::Reading,
        };
    }
}

pub struct Reader {
    shared: Arc<Shared>,
    checkpoint: Arc<Checkpoint>,
    devices: Arc<[Device]>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
}

impl Reader {
    /// Starts the reading threads. `budget` is the largest number of bytes of loaded weights in the
    /// queue, on each of `devices`.
    ///
    /// # Errors
    /// `io` if not even one thread can be started.
    pub fn start(checkpoint: Arc<Checkpoint>, devices: Arc<[Device]>, budget: usize) -> Result<Self> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, work: Condvar::new(), complete: Condvar::new(), budget });
        let thread = |_| {
            let (shared, checkpoint, devices) = (shared.clone(), checkpoint.clone(), devices.clone());
            threads::start(move || {
                read(&shared, &Loader { checkpoint: &checkpoint, devices: &devices });
            })
        };
        let (mut started, mut refused) = (Vec::new(), None);
        for outcome in (0..THREADS).map(thread) {
            match outcome {
                Ok(thread) => started.push(thread),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if started.is_empty() => Err(Error::no_thread("reading weights", &error)),
            _ => Ok(Self { shared, checkpoint, devices, threads: started, waited: Duration::ZERO }),
        }
    }

    /// Requests a portion, to be read after all earlier requests. Nothing happens if it was
    /// requested already.
    pub fn request(&self, portion: Portion, parts: Vec<Part>) -> Result<()> {
        let loader = Loader { checkpoint: &self.checkpoint, devices: &self.devices };
        let bytes = parts.iter().map(|part| loader.resident_bytes(part)).sum::<Result<usize>>()?;
        let mut state = self.shared.lock();
        if let Entry::Vacant(place) = state.portions.entry(portion) {
            let tensors = vec![Vec::new(); parts.len()];
            place.insert(Pending { bytes, unfinished: parts.len(), tensors, failure: None });
            state.queue.extend(parts.into_iter().enumerate().map(|(place, part)| (portion, place, part)));
            self.shared.work.notify_all();
        }
        Ok(())
    }

    /// Waits for a requested portion and returns its weights in their order, for each device.
    pub fn recv(&mut self, wanted: Portion) -> Result<Vec<Vec<Tensor>>> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        loop {
            match state.portions.get(&wanted) {
                None => return Err(Error::internal(format!("{wanted:?} was not requested"))),
                Some(pending) if pending.unfinished == 0 => break,
                Some(_) => {
                    state.wanted = Some(wanted);
                    self.shared.work.notify_all();
                    state = self.shared.complete.wait(state).expect("no panic under this lock");
                }
            }
        }
        state.wanted = None;
        let pending = state.portions.remove(&wanted).expect("found above");
        state.waiting = state.waiting.saturating_sub(pending.bytes);
        self.shared.work.notify_all();
        drop(state);
        self.waited += start.elapsed();
        match pending.failure {
            Some(error) => Err(error),
            None => {
                let mut parts: Vec<_> = pending.tensors.into_iter().map(Vec::into_iter).collect();
                let of_device = |_| parts.iter_mut().map(|part| part.next().expect("one for each device")).collect();
                Ok((0..self.devices.len()).map(of_device).collect())
            }
        }
    }

    /// Waits until all requested portions have been read.
    pub fn wait_all(&self) {
        let mut state = self.shared.lock();
        while state.portions.values().any(|pending| pending.unfinished > 0) {
            state = self.shared.complete.wait(state).expect("no panic under this lock");
        }
    }

    pub fn times(&self) -> Times {
        let mut state = self.shared.lock();
        state.book();
        let State { reading, waited_for_room, .. } = *state;
        Times { waited_for_weights: self.waited, reading, waited_for_room }
    }
}

/// The loop of a reading thread, until the reader is dropped.
fn read(shared: &Shared, loader: &Loader) {
    let mut state = shared.lock();
    while !state.closed {
        let next = state.begin(shared.budget);
        state.book();
        let Some((portion, place, part)) = next else {
            state = shared.work.wait(state).expect("no panic under this lock");
            continue;
        };
        drop(state);
        let tensors = loader.part(&part);
        state = shared.lock();
        state.in_flight -= 1;
        if let Some(pending) = state.portions.get_mut(&portion) {
            pending.unfinished -= 1;
            match tensors {
                Ok(tensors) => pending.tensors[place] = tensors,
                Err(error) => pending.failure = pending.failure.take().or(Some(error)),
            }
            if pending.unfinished == 0 {
                shared.complete.notify_all();
                // A portion that the pass waits for may be behind a full queue.
                shared.work.notify_all();
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::spec::{Role, TensorSpec};

    const VALUES: usize = 1000;
    const BYTES: usize = 4 * VALUES;

    /// A checkpoint of f32 tensors `t0`, `t1`, …, each filled with its number, and the last one
    /// with NaN.
    fn checkpoint(folder: &std::path::Path, count: usize) -> Arc<Checkpoint> {
        let value = |i: usize| if i + 1 == count { f32::NAN } else { i as f32 };
        let data: Vec<Vec<u8>> = (0..count).map(|i| value(i).to_le_bytes().repeat(VALUES)).collect();
        let view = |data| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![VALUES], data).unwrap();
        let views = data.iter().enumerate().map(|(i, data)| (format!("t{i}"), view(data)));
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
        let source = crate::hub::at(&folder.display().to_string()).unwrap();
        Arc::new(Checkpoint::open(source).unwrap())
    }

    fn parts(numbers: std::ops::Range<usize>) -> Vec<Part> {
        let weight = |i| TensorSpec::new(format!("t{i}"), [VALUES]);
        numbers.map(|i| Part { weight: weight(i), role: Role::ToResidual }).collect()
    }

    fn firsts(tensors: &[Tensor]) -> Vec<f32> {
        tensors.iter().map(|tensor| tensor.values().unwrap()[0]).collect()
    }

    #[test]
    fn portions_arrive_whatever_the_budget_and_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(folder.path(), 21);
        // Space for nothing, for one portion of three tensors, and for all.
        for budget in [1, 3 * BYTES, usize::MAX] {
            let mut reader = Reader::start(checkpoint.clone(), [Device::Cpu].into(), budget).unwrap();
            for portion in 0..6 {
                reader.request(Portion::Core(portion), parts(3 * portion..3 * portion + 3)).unwrap();
            }
            // The last one first: it is behind a queue that may be full.
            for portion in [5, 0, 1, 2, 3, 4] {
                let tensors = reader.recv(Portion::Core(portion)).unwrap().remove(0);
                let expected: Vec<f32> = (3 * portion..3 * portion + 3).map(|i| i as f32).collect();
                assert_eq!(firsts(&tensors), expected, "budget {budget}");
            }
            assert!(reader.recv(Portion::Core(0)).is_err(), "taken before");
        }
    }

    #[test]
    fn what_waits_stays_within_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(folder.path(), 21);
        let mut reader = Reader::start(checkpoint.clone(), [Device::Cpu].into(), 6 * BYTES).unwrap();
        for portion in 0..6 {
            reader.request(Portion::Core(portion), parts(3 * portion..3 * portion + 3)).unwrap();
        }
        for portion in 0..6 {
            reader.recv(Portion::Core(portion)).unwrap();
            let read = checkpoint.bytes_read() as usize;
            assert!(read <= (portion + 3) * 3 * BYTES, "{read} bytes read when {} portions were taken", portion + 1);
        }
    }

    #[test]
    fn damage_is_told_and_a_full_queue_can_be_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::start(checkpoint(folder.path(), 21), [Device::Cpu].into(), 1).unwrap();
        reader.request(Portion::Core(0), parts(18..21)).unwrap();
        reader.request(Portion::Core(1), parts(0..3)).unwrap();
        reader.request(Portion::Core(2), parts(3..6)).unwrap();
        let Err(error) = reader.recv(Portion::Core(0)) else { panic!("NaN was accepted") };
        assert!(error.kind == Kind::NonFinite && error.message.contains("t20"), "{error}");
    }
}
