//! Progress on stderr: bars on a terminal, plain lines elsewhere, nothing with --quiet.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use unicode_width::UnicodeWidthStr;

use crate::host::Watch;
use crate::progress::{Event, Progress, interrupt_requested};
use crate::terminal::{self, one_line};

/// The least time between two plain lines about the same work.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The greatest width of the name of a bar and of the bar itself, in columns.
const WIDEST: usize = 24;

pub(super) fn watch(quiet: bool) -> Arc<dyn Watch> {
    // A bar is drawn over its previous state, which a dumb terminal cannot do.
    let draws = std::io::stderr().is_terminal() && !terminal::is_dumb();
    match (quiet, draws) {
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
        // Failures are printed even with --quiet, but notes are not.
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
        above(&self.all, text);
    }
}

/// Prints a line above the bars.
fn above(bars: &MultiProgress, text: &str) {
    let _ = bars.println(terminal::for_stderr(text));
}

struct BarWork {
    all: MultiProgress,
    bar: Mutex<Option<Bar>>,
}

struct Bar {
    bar: ProgressBar,
    /// The number of steps that were done before the start.
    before: u64,
}

impl Progress for BarWork {
    fn event(&self, event: Event) {
        let mut bar = self.bar.lock().expect("no panic under this lock");
        match event {
            Event::Begin { what, total } => {
                let [name, length] = columns(terminal::note_width());
                let bold = if terminal::may_colour() { ".bold" } else { "" };
                let style = ProgressStyle::with_template(&format!("{{prefix:{name}{bold}}} {{bar:{length}}} {{msg}}"));
                let new = self.all.add(ProgressBar::new(total));
                new.set_style(style.expect("a valid template"));
                new.set_prefix(shortened(&one_line(&what), name));
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
                above(&self.all, &resumed(&path, layer));
            }
            Event::Step { done, bytes, tokens, seconds } => {
                if let Some(Bar { bar, before }) = &*bar {
                    bar.set_position(done);
                    let total = bar.length().unwrap_or(done);
                    let left = format!("ETA {:#}", HumanDuration(bar.eta()));
                    let mut parts = match tokens {
                        // Without layers this is a transfer, which counts bytes.
                        0 => vec![
                            format!("{}/{}", DecimalBytes(done), DecimalBytes(total)),
                            left,
                            format!("{}/s", DecimalBytes(bar.per_sec() as u64)),
                        ],
                        _ => vec![format!("layer {done}/{total}"), left],
                    };
                    if tokens > 0 {
                        parts.extend(rates(bytes, tokens.saturating_mul(done.saturating_sub(*before)), seconds));
                    }
                    let width = terminal::note_width();
                    // A name and a bar take one space after each, and one column stays free.
                    let room = width.map(|width| width.saturating_sub(columns(Some(width)).iter().sum::<usize>() + 3));
                    bar.set_message(as_many_as_fit(&parts, room));
                }
            }
            Event::Checkpoint { .. } => (),
            Event::End => {
                if let Some(Bar { bar, .. }) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Warning(text) => {
                above(&self.all, &format!("warning: {}", one_line(&text)));
            }
            Event::Note(text) if is_new(&text) => {
                above(&self.all, &format!("note: {}", one_line(&text)));
            }
            Event::Note(_) => (),
        }
    }

    fn interrupted(&self) -> bool {
        interrupt_requested()
    }
}

/// The widths of the name and of the bar on a terminal of `width` columns.
fn columns(width: Option<usize>) -> [usize; 2] {
    let width = width.unwrap_or(usize::MAX);
    [(width / 10).saturating_mul(3).clamp(8, WIDEST), (width / 8).clamp(4, WIDEST)]
}

/// Shortens a name to at most `room` columns. The end is kept, because names of models and files
/// differ there.
fn shortened(name: &str, room: usize) -> String {
    let mut rest = name;
    while rest.width() + usize::from(rest.len() < name.len()) > room {
        rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
    }
    if rest.len() < name.len() { format!("…{rest}") } else { name.to_string() }
}

/// Joins as many of the parts beside a bar as fit. The most important part comes first.
fn as_many_as_fit(parts: &[String], room: Option<usize>) -> String {
    let fits = |count: &usize| room.is_none_or(|room| parts[..*count].join(", ").width() <= room);
    parts[..(0..=parts.len()).rev().find(fits).unwrap_or(0)].join(", ")
}

/// The greatest number of bytes of printed notes that are remembered. Machines may send any number.
const NOTES: usize = 1 << 20;

/// Returns whether a note has not been printed yet.
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

/// The read rate, and the tokens through a layer per second, measured where the work is done, since
/// events of a distant machine may arrive all at once. The list is empty if they are unknown.
fn rates(bytes: u64, tokens: u64, seconds: f64) -> Vec<String> {
    match seconds > 0.0 {
        true => vec![
            format!("{:.2} GB/s", bytes as f64 / 1e9 / seconds),
            format!("{:.0} tokens/s/layer", tokens as f64 / seconds),
        ],
        false => Vec::new(),
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
    /// The number of steps that were done before the start.
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
                        let rates: String = rates.iter().map(|rate| format!("{rate} ")).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_as_the_terminal_at_most() {
        let parts = ["layer 12/94", "ETA 12s", "0.25 GB/s", "12345 tokens/s/layer"].map(String::from);
        let mut told = Vec::new();
        for width in [40, 60, 80, 120] {
            let [name, length] = columns(Some(width));
            let shown = as_many_as_fit(&parts, Some(width - name - length - 3));
            assert!(
                name + length + 2 + shown.width() < width && shown.starts_with("layer 12/94, ETA"),
                "{width}: {shown}"
            );
            let short = shortened("HuggingFaceTB/SmolLM2-135M-Instruct", name);
            assert!(short.width() == name && short.ends_with("Instruct"), "{short}");
            told.push(shown);
        }
        assert!(told[0].len() < told[2].len() && told[3].ends_with("tokens/s/layer"), "{told:?}");
        assert_eq!((as_many_as_fit(&parts, Some(5)), as_many_as_fit(&parts, None).len()), (String::new(), 53));
        assert_eq!((shortened("short", 8), columns(None)), ("short".to_string(), [24, 24]));
    }
}
