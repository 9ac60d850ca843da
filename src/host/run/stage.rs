//! Simulation for dry runs and tests: effects are recorded in a plan, or happen in the simulated
//! environment of a test. Simulated machines only have a price and a life.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::gpu::{self, ProviderKind, Want};
use crate::session::{Planned, Provision, Session};

/// Start time of a machine in seconds: RunPod's secure machines take 1 to 4 minutes.
pub(crate) const START_SECONDS: f64 = 180.0;

/// GPUs that a test can rent: name, and a fictitious price in USD per hour.
const PLAYED_GPUS: &[(&str, f64)] =
    &[("NVIDIA A40", 0.5), ("NVIDIA L40S", 1.0), ("NVIDIA A100 80GB", 2.0), ("NVIDIA H100", 3.0)];

pub enum Play {
    /// A dry run: nothing is done, and `here` records the requests to this machine.
    Plan { here: Arc<Planned> },
    /// A test: work runs here, and no money is spent.
    Test,
}

pub struct Stage {
    play: Play,
    machines: Mutex<Vec<Arc<Part>>>,
    /// Seconds.
    clock: Mutex<f64>,
    failures: Mutex<Vec<(String, Kind)>>,
    /// The output of the script.
    output: Mutex<String>,
    files: Mutex<Vec<String>>,
    /// Folders of stored results that were loaded, in this order.
    loaded: Mutex<Vec<String>>,
    effects: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
    /// Problems that would occur.
    wrong: Mutex<Vec<String>>,
}

/// A simulated machine.
pub struct Part {
    pub id: String,
    pub provider: ProviderKind,
    pub gpu: String,
    /// USD per hour; None if unknown.
    pub price: Option<f64>,
    pub task: Option<String>,
    pub max_hours: f64,
    pub keep_running: bool,
    /// Its requests in a dry run; None if this machine simulates it.
    pub planned: Option<Arc<Planned>>,
    started: f64,
    ended: Mutex<Option<f64>>,
}

impl Part {
    pub fn is_alive(&self) -> bool {
        self.ended.lock().expect("no panic under this lock").is_none()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

impl Stage {
    pub fn new(play: Play) -> Self {
        Self {
            play,
            machines: Mutex::default(),
            clock: Mutex::default(),
            failures: Mutex::default(),
            output: Mutex::default(),
            files: Mutex::default(),
            loaded: Mutex::default(),
            effects: Mutex::default(),
            notes: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    pub fn is_plan(&self) -> bool {
        matches!(self.play, Play::Plan { .. })
    }

    /// The requests to this machine, in a dry run.
    pub fn here(&self) -> Option<&Arc<Planned>> {
        match &self.play {
            Play::Plan { here } => Some(here),
            Play::Test => None,
        }
    }

    /// True if a file, by its canonical path, was made for this plan, here or for a machine.
    pub fn made(&self, path: &Path) -> bool {
        let there = locked(&self.machines).iter().any(|part| part.planned.as_ref().is_some_and(|p| p.made(path)));
        there || self.here().is_some_and(|here| here.made(path))
    }

    pub fn said(&self, text: &str) {
        let mut output = locked(&self.output);
        output.push_str(text);
        output.push('\n');
    }

    pub fn output(&self) -> String {
        locked(&self.output).clone()
    }

    pub fn machines(&self) -> Vec<Arc<Part>> {
        locked(&self.machines).clone()
    }

    pub fn files(&self) -> Vec<String> {
        let mut files = locked(&self.files).clone();
        files.sort();
        files.dedup();
        files
    }

    /// Folders of stored results that were loaded, each once.
    pub fn loaded(&self) -> Vec<String> {
        locked(&self.loaded).clone()
    }

    pub fn effects(&self) -> Vec<String> {
        locked(&self.effects).clone()
    }

    /// Notes for the user of the plan.
    pub fn notes(&self) -> Vec<String> {
        locked(&self.notes).clone()
    }

    /// Problems that would occur, even if they are caught.
    pub fn wrong(&self) -> Vec<String> {
        locked(&self.wrong).clone()
    }

    /// Adds a problem. A longer message that contains another one replaces it.
    pub fn goes_wrong(&self, what: String) {
        let mut wrong = locked(&self.wrong);
        if wrong.iter().any(|known| known.contains(&what)) {
            return;
        }
        match wrong.iter_mut().find(|known| what.contains(known.as_str())) {
            Some(known) => *known = what,
            None => wrong.push(what),
        }
    }

    /// Removes a problem that another message reports.
    pub fn is_told(&self, what: &str) {
        locked(&self.wrong).retain(|known| !what.contains(known.as_str()));
    }

    pub fn clock(&self) -> f64 {
        *locked(&self.clock)
    }

    pub fn pass(&self, seconds: f64) {
        *locked(&self.clock) += seconds.max(0.0);
    }

    /// Adds a file that would be written.
    pub fn writes(&self, path: &Path) {
        locked(&self.files).push(path.display().to_string());
    }

    /// Adds a folder of stored results that was loaded.
    pub fn loads(&self, folder: &Path) {
        let folder = folder.display().to_string();
        let mut loaded = locked(&self.loaded);
        if !loaded.contains(&folder) {
            loaded.push(folder);
        }
    }

    /// Adds another effect.
    pub fn does(&self, what: String) {
        locked(&self.effects).push(what);
    }

    /// Makes the next call of `primitive` fail.
    pub fn fail(&self, primitive: &str, kind: Kind) {
        locked(&self.failures).push((primitive.to_string(), kind));
    }

    pub fn may_fail(&self, primitive: &str) -> Result<()> {
        let mut failures = locked(&self.failures);
        let Some(i) = failures.iter().position(|(name, _)| name == primitive) else { return Ok(()) };
        let (name, kind) = failures.remove(i);
        let message = format!("{name}: a failure of kind {} that this test asked for", kind.name());
        Err(Error::new(kind, message).hint("fake_failure put it there"))
    }

    /// A simulated machine for this request.
    pub fn provision(&self, asked: &Provision) -> Result<Arc<Part>> {
        let (gpu, price) = match &self.play {
            Play::Test => played(asked.provider, &asked.want)?,
            Play::Plan { .. } => self.offered(asked),
        };
        let planned = match self.play {
            Play::Plan { .. } => Some(Arc::new(Planned::elsewhere()?)),
            Play::Test => None,
        };
        let mut machines = locked(&self.machines);
        let started = self.clock();
        let part = Arc::new(Part {
            id: format!("{}-{}", asked.provider, machines.len() + 1),
            provider: asked.provider,
            gpu,
            price,
            task: asked.task.clone(),
            max_hours: asked.want.max_hours,
            keep_running: asked.keep_running,
            planned,
            started,
            ended: Mutex::new(None),
        });
        machines.push(part.clone());
        Ok(part)
    }

    /// The best offer for a request. Its price is unknown if the provider cannot be asked.
    fn offered(&self, asked: &Provision) -> (String, Option<f64>) {
        if asked.provider != ProviderKind::RunPod {
            let host = asked.ssh.as_ref().map(|ssh| ssh.host.clone());
            return (host.or(asked.want.job.gres.clone()).unwrap_or_default(), Some(0.0));
        }
        let offers =
            asked.provider_id().and_then(|id| gpu::provider(&id)).and_then(|provider| provider.offers(&asked.want));
        let named = || asked.want.gpus.first().cloned().unwrap_or_else(|| "any GPU".to_string());
        match offers {
            Ok(offers) if !offers.is_empty() => (offers[0].gpu.clone(), Some(offers[0].price)),
            Ok(_) => {
                self.note(format!("{}: nothing on offer fits {}", asked.provider, named()));
                (named(), None)
            }
            Err(error) => {
                self.note(format!("{}: prices are not known: {}", asked.provider, error.message));
                (named(), None)
            }
        }
    }

    pub fn note(&self, note: String) {
        let mut notes = locked(&self.notes);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    pub fn end(&self, part: &Part) {
        locked(&part.ended).get_or_insert(self.clock());
    }

    /// Cost in USD so far, by the simulated clock.
    pub fn cost(&self, part: &Part) -> f64 {
        let until = locked(&part.ended).unwrap_or(self.clock());
        (until - part.started) / 3600.0 * part.price.unwrap_or(0.0)
    }

    /// The machine as scripts read it.
    pub fn json(&self, part: &Part) -> Value {
        json!({
            "name": part.id, "id": part.id, "provider": part.provider, "gpu": part.gpu,
            "price": part.price.unwrap_or(0.0), "cost": self.cost(part), "keep_running": part.keep_running,
            "task": part.task, "alive": part.is_alive(),
        })
    }

    /// The session for the work of a machine.
    pub fn session(&self, part: &Part, here: &Arc<dyn Session>) -> Arc<dyn Session> {
        match &part.planned {
            Some(planned) => planned.clone(),
            None => here.clone(),
        }
    }

    /// Adds the files of an analysis that would be stored as `name`.
    pub fn stores(&self, results: &Path, name: &str, num_sequences: usize) {
        let folder: PathBuf = results.join(name);
        let batches = (0..num_sequences).map(|i| format!("batch_{i:03}_results.json"));
        let fixed = ["config.json", "final_analysis_results.json", "features.csv", "activations.stats"];
        for file in fixed.map(str::to_string).into_iter().chain(batches) {
            self.writes(&folder.join(file));
        }
    }
}

/// The GPU of a simulated provider: the first named one that exists, or the cheapest.
fn played(provider: ProviderKind, want: &Want) -> Result<(String, Option<f64>)> {
    if provider != ProviderKind::RunPod {
        return Ok((String::new(), Some(0.0)));
    }
    let affordable = |price: f64| want.max_price.is_none_or(|most| price <= most);
    let known = || PLAYED_GPUS.iter().filter(|(_, price)| affordable(*price));
    let found = match want.gpus.is_empty() {
        true => known().next(),
        false => want.gpus.iter().find_map(|wanted| known().find(|(name, _)| name.contains(wanted.as_str()))),
    };
    match found {
        Some((name, price)) => Ok((name.to_string(), Some(*price))),
        None => Err(Error::new(Kind::NoCapacity, format!("{provider}: nothing on offer fits what is wanted"))
            .hint("a test can rent A40, L40S, A100 and H100")),
    }
}
