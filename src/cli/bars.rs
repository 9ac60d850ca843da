//! Progress on stderr: bars on a terminal, plain lines elsewhere, nothing with --quiet.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::host::Watch;
use crate::host::grid::in_lines;
use crate::progress::{Event, Progress, interrupt_requested};
use crate::terminal::{self, one_line, visible};

/// Between two plain lines about the same work.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The bar of a transfer.
const TRANSFER: &str =
    "{prefix:24.bold} {bar:24} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}";

pub fn watch(quiet: bool) -> Arc<dyn Watch> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Arc::new(Quiet),
        (false, true) => Arc::new(Bars { all: MultiProgress::new() }),
        (false, false) => Arc::new(Lines),
    }
}

struct Quiet;

impl Watch for Quiet {
    fn progress(&self) -> Arc<dyn Progress> {
        Arc::new(QuietWork)
    }

    fn line(&self, text: &str) {
        // Failures are told even when quiet; notes are not.
        if text.starts_with("FAILED") {
            terminal::note(text);
        }
    }
}

struct QuietWork;

impl Progress for QuietWork {
    fn event(&self, _: Event) {}

    fn interrupted(&self) -> bool {
        interrupt_requested()
    }
}

struct Bars {
    all: MultiProgress,
}

impl Watch for Bars {
    fn progress(&self) -> Arc<dyn Progress> {
        Arc::new(BarWork { all: self.all.clone(), bar: Mutex::default() })
    }

    fn line(&self, text: &str) {
        let _ = self.all.println(visible(&in_lines(text, terminal::note_width())));
    }
}

struct BarWork {
    all: MultiProgress,
    bar: Mutex<Option<Bar>>,
}

struct Bar {
    bar: ProgressBar,
    /// Steps that were done before the start.
    before: u64,
}

impl Progress for BarWork {
    fn event(&self, event: Event) {
        let mut bar = self.bar.lock().expect("no panic under this lock");
        match event {
            Event::Begin { what, total } => {
                let style = ProgressStyle::with_template("{prefix:24.bold} {bar:24} layer {pos}/{len} {msg}ETA {eta}");
                let new = self.all.add(ProgressBar::new(total));
                new.set_style(style.expect("a valid template"));
                new.set_prefix(one_line(&what).into_owned());
                if let Some(unfinished) = bar.replace(Bar { bar: new, before: 0 }) {
                    unfinished.bar.finish_and_clear();
                }
            }
            Event::Resumed { path, layer } => {
                if let Some(bar) = &mut *bar {
                    bar.before = layer;
                    bar.bar.set_position(layer);
                    bar.bar.reset_eta();
                }
                let _ = self.all.println(resumed(&path, layer));
            }
            Event::Step { done, bytes, tokens, seconds } => {
                if let Some(Bar { bar, before }) = &*bar {
                    if tokens == 0 {
                        // No layers: a transfer, which counts bytes.
                        bar.set_style(ProgressStyle::with_template(TRANSFER).expect("a valid template"));
                    } else {
                        bar.set_message(rates(bytes, tokens.saturating_mul(done.saturating_sub(*before)), seconds));
                    }
                    bar.set_position(done);
                }
            }
            Event::Checkpoint { .. } => (),
            Event::End => {
                if let Some(Bar { bar, .. }) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Warning(text) => {
                let _ = self.all.println(format!("warning: {}", one_line(&text)));
            }
            Event::Note(text) if is_new(&text) => {
                let _ = self.all.println(format!("note: {}", one_line(&text)));
            }
            Event::Note(_) => (),
        }
    }

    fn interrupted(&self) -> bool {
        interrupt_requested()
    }
}

/// Notes that have been shown are kept up to so many bytes; machines may send any number.
const NOTES: usize = 1 << 20;

/// Whether a note has not been shown yet.
fn is_new(text: &str) -> bool {
    static SHOWN: Mutex<(BTreeSet<String>, usize)> = Mutex::new((BTreeSet::new(), 0));
    let mut shown = SHOWN.lock().expect("no panic under this lock");
    let (notes, bytes) = &mut *shown;
    if notes.contains(text) {
        return false;
    }
    if *bytes + text.len() <= NOTES {
        *bytes += text.len();
        notes.insert(text.to_string());
    }
    true
}

fn resumed(path: &str, layer: u64) -> String {
    format!("going on after layer {layer}, from {}", one_line(path))
}

/// Read rate, and tokens through a layer per second, by the clock of whoever did the work: here events of a distant machine may
/// come all at once. Empty where that is not told.
fn rates(bytes: u64, tokens: u64, seconds: f64) -> String {
    match seconds > 0.0 {
        true => format!("{:.2} GB/s {:.0} tokens/s/layer ", bytes as f64 / 1e9 / seconds, tokens as f64 / seconds),
        false => String::new(),
    }
}

struct Lines;

impl Watch for Lines {
    fn progress(&self) -> Arc<dyn Progress> {
        Arc::new(LineWork::default())
    }

    fn line(&self, text: &str) {
        terminal::note(text);
    }
}

#[derive(Default)]
struct LineWork {
    state: Mutex<Option<LineState>>,
}

struct LineState {
    what: String,
    total: u64,
    /// Steps that were done before the start.
    before: u64,
    start: Instant,
    told: Instant,
}

impl Progress for LineWork {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().expect("no panic under this lock");
        match event {
            Event::Begin { what, total } => {
                let now = Instant::now();
                *state = Some(LineState { what, total, before: 0, start: now, told: now });
            }
            Event::Step { done, bytes, tokens, seconds } => {
                let Some(state) = &mut *state else { return };
                if state.told.elapsed() >= LINE_INTERVAL || done == state.total {
                    let elapsed = state.start.elapsed();
                    let own = done.saturating_sub(state.before);
                    let left = state.total.saturating_sub(done);
                    let what = one_line(&state.what);
                    if tokens == 0 {
                        let rate = bytes as f64 / 1e9 / elapsed.as_secs_f64().max(1e-6);
                        let eta = (elapsed.as_secs_f64() * left as f64 / own.max(1) as f64) as u64;
                        let (done, total) = (done as f64 / 1e9, state.total as f64 / 1e9);
                        terminal::note(format!("{what}: {done:.2}/{total:.2} GB {rate:.2} GB/s ETA {eta} s"));
                    } else {
                        let rates = rates(bytes, tokens.saturating_mul(own), seconds);
                        let eta = (seconds * left as f64 / own.max(1) as f64) as u64;
                        terminal::note(format!("{what}: {done}/{} {rates}ETA {eta} s", state.total));
                    }
                    state.told = Instant::now();
                }
            }
            Event::Resumed { path, layer } => {
                if let Some(state) = &mut *state {
                    state.before = layer;
                }
                terminal::note(resumed(&path, layer));
            }
            Event::Checkpoint { .. } => (),
            Event::End => *state = None,
            Event::Warning(text) => terminal::note(format!("warning: {}", one_line(&text))),
            Event::Note(text) if is_new(&text) => terminal::note(format!("note: {}", one_line(&text))),
            Event::Note(_) => (),
        }
    }

    fn interrupted(&self) -> bool {
        interrupt_requested()
    }
}
