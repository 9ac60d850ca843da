//! The thread that reads ahead: portions of weights are asked for by name and arrive, in that order, through a queue that
//! is bounded in bytes.
//!
//! What has been read and not yet taken never exceeds the budget, except that one portion may always wait.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};

use super::checkpoint::Checkpoint;
use super::inventory::Part;
use super::load::Loader;
use crate::error::{Error, Kind, Result};

/// Names a portion of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Portion {
    /// Everything of a layer but its routed experts.
    Core(usize),
    Expert {
        layer: usize,
        expert: usize,
    },
    FinalNorm,
}

/// Loaded tensors by checkpoint name.
pub struct Weights(HashMap<String, Tensor>);

impl Weights {
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::new(Kind::Unsupported, format!("weight `{name}` was not scheduled")))
    }
}

/// Bytes read and waiting.
struct Queue {
    waiting: Mutex<usize>,
    taken: Condvar,
    budget: usize,
}

impl Queue {
    fn enter(&self, bytes: usize) {
        let mut waiting = self.waiting.lock().expect("no panic under this lock");
        while *waiting > 0 && *waiting + bytes > self.budget {
            waiting = self.taken.wait(waiting).expect("no panic under this lock");
        }
        *waiting += bytes;
    }

    fn leave(&self, bytes: usize) {
        *self.waiting.lock().expect("no panic under this lock") -= bytes;
        self.taken.notify_one();
    }
}

type Loaded = (Portion, usize, Result<Weights>);

pub struct Reader {
    requests: Option<Sender<(Portion, Vec<Part>)>>,
    loaded: Receiver<Loaded>,
    early: HashMap<Portion, Result<Weights>>,
    queue: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
    waited: Duration,
}

impl Reader {
    /// `budget`: bytes of loaded weights that may wait to be taken.
    pub fn start(checkpoint: Arc<Checkpoint>, dtype: DType, device: Device, budget: usize) -> Self {
        let (requests, asked) = channel::<(Portion, Vec<Part>)>();
        let (deliver, loaded) = channel();
        let queue = Arc::new(Queue { waiting: Mutex::new(0), taken: Condvar::new(), budget });
        let gate = queue.clone();
        let thread = std::thread::spawn(move || {
            let loader = Loader { checkpoint: &checkpoint, dtype, device: &device };
            for (portion, parts) in asked {
                let bytes = parts.iter().map(|part| resident_bytes(part, dtype)).sum();
                gate.enter(bytes);
                let weights = parts.iter().map(|part| Ok((part.key().to_string(), loader.part(part)?)));
                let weights = weights.collect::<Result<HashMap<_, _>>>().map(Weights);
                if deliver.send((portion, bytes, weights)).is_err() {
                    return; // the run has ended
                }
            }
        });
        let early = HashMap::new();
        Self { requests: Some(requests), loaded, early, queue, thread: Some(thread), waited: Duration::ZERO }
    }

    /// Asks for a portion; it will be read after all that were asked for before.
    pub fn ask(&self, portion: Portion, parts: Vec<Part>) {
        let requests = self.requests.as_ref().expect("open until dropped");
        // A reader that has died has left its reason in the queue; `take` will find it or say so.
        let _ = requests.send((portion, parts));
    }

    /// Waits for a portion that was asked for.
    pub fn take(&mut self, wanted: Portion) -> Result<Weights> {
        if let Some(weights) = self.early.remove(&wanted) {
            return weights;
        }
        let start = Instant::now();
        loop {
            let (portion, bytes, weights) = self
                .loaded
                .recv()
                .map_err(|_| Error::new(Kind::Io, format!("the reader thread ended before {wanted:?} arrived")))?;
            self.queue.leave(bytes);
            if portion == wanted {
                self.waited += start.elapsed();
                return weights;
            }
            self.early.insert(portion, weights);
        }
    }

    /// Time spent in `take` with nothing to compute.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.requests = None;
        // Let a thread that waits at the gate or has deliveries left run to its end.
        while let Ok((_, bytes, _)) = self.loaded.recv() {
            self.queue.leave(bytes);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bytes of a part once loaded.
pub fn resident_bytes(part: &Part, dtype: DType) -> usize {
    let dtype = if part.role().in_f32() { DType::F32 } else { dtype };
    part.elements() * dtype.size_in_bytes()
}
