//! `outlier repl`: the terminal around a session of typing. With stdin from elsewhere it reads that, line by line.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Editor, Helper};

use super::allow::Allow;
use super::bars;
use super::exit::panicked;
use crate::error::Result;
use crate::exit::Exit;
use crate::host::Context;
use crate::host::repl::{Outcome, Repl};
use crate::outside::without_bom;
use crate::progress::INTERRUPTED;
use crate::terminal;

const PROMPT: &str = "> ";

#[derive(Args)]
pub(super) struct Prompt {
    /// A machine that is at work, by its id or name as `outlier gpus` lists it: it is `gpu`, what is loaded there is `models`.
    /// It stays when you leave.
    #[arg(long, value_name = "ID")]
    attach: Option<String>,
    #[command(flatten)]
    allow: Allow,
}

pub(super) fn repl(asked: &Prompt, quiet: bool) -> Result<Exit> {
    let mut context = Context::new(PathBuf::new(), PathBuf::from("repl"), Vec::new(), bars::watch(quiet));
    context.bounds.allowed = asked.allow.places();
    let context = Arc::new(context);
    let mut repl = Repl::new(context.clone());
    if let Some(id) = &asked.attach {
        terminal::sentence(repl.attach(id)?);
    }
    let repl = Rc::new(RefCell::new(repl));
    let failed = match std::io::stdin().is_terminal() {
        true => typed(&repl),
        false => piped(&repl),
    };
    if asked.attach.is_some() {
        context.fleet.leave().iter().for_each(terminal::note);
    }
    if !failed {
        context.ended_well();
    }
    INTERRUPTED.store(false, Ordering::Relaxed);
    let ending = context.fleet.finish();
    ending.lines.iter().for_each(terminal::note);
    Ok(match (ending.leaked, failed) {
        (true, _) => Exit::Leaked,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    })
}

/// Runs one input and shows what came of it. False at the end.
fn one(repl: &RefCell<Repl>, input: &str, failed: &mut bool) -> bool {
    let run = std::panic::AssertUnwindSafe(|| repl.borrow_mut().run(input));
    let Ok(outcome) = std::panic::catch_unwind(run) else {
        panicked();
        *failed = true;
        return true;
    };
    // Ctrl-C was for the call that it ended.
    INTERRUPTED.store(false, Ordering::Relaxed);
    match outcome {
        Outcome::Shown(text) if text.is_empty() => true,
        Outcome::Shown(text) => {
            terminal::sentence(text);
            true
        }
        Outcome::Failed(diagnostic) => {
            *failed = true;
            terminal::note(diagnostic);
            true
        }
        Outcome::Quit(text) => {
            if !text.is_empty() {
                terminal::sentence(text);
            }
            false
        }
    }
}

/// From a pipe or a file. An error does not end it, and shows in the exit code.
fn piped(repl: &RefCell<Repl>) -> bool {
    let mut failed = false;
    let mut input = String::new();
    for (number, line) in (1..).zip(std::io::stdin().lock().split(b'\n')) {
        let line = match line {
            Ok(line) if number == 1 => without_bom(line),
            Ok(line) => line,
            Err(error) => {
                terminal::note(format!("the input ends before line {number}: {error}"));
                return true;
            }
        };
        let Ok(line) = String::from_utf8(line) else {
            terminal::note(format!("line {number} of the input is not UTF-8, and is left out"));
            failed = true;
            continue;
        };
        input.push_str(line.trim_end_matches('\r'));
        input.push('\n');
        if repl.borrow().is_open(&input) {
            continue;
        }
        if !one(repl, &std::mem::take(&mut input), &mut failed) {
            return failed;
        }
    }
    if !input.trim().is_empty() {
        one(repl, &input, &mut failed);
    }
    failed
}

fn typed(repl: &Rc<RefCell<Repl>>) -> bool {
    terminal::sentence(format!(
        "outlier {}. :help says what there is, Tab completes, :quit or Ctrl-D leaves.",
        env!("CARGO_PKG_VERSION")
    ));
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let mut editor: Editor<Line, FileHistory> = match Editor::with_config(config) {
        Ok(editor) => editor,
        Err(_) => return piped(repl),
    };
    editor.set_helper(Some(Line { repl: repl.clone() }));
    let history = std::env::home_dir().map(|home| home.join(".outlier").join("history"));
    if let Some(history) = &history {
        let _ = history.parent().map(std::fs::create_dir_all);
        let _ = editor.load_history(history);
    }
    let mut failed = false;
    loop {
        match editor.readline(PROMPT) {
            Ok(input) => {
                if !one(repl, &input, &mut failed) {
                    break;
                }
            }
            // At the prompt there is nothing to end.
            Err(ReadlineError::Interrupted) => terminal::line("(:quit leaves)"),
            Err(_) => {
                // Ctrl-D leaves the prompt without a line's end.
                terminal::line("");
                break;
            }
        }
        let _ = std::io::stdout().flush();
    }
    if let Some(history) = &history {
        let _ = editor.save_history(history);
    }
    // At a terminal errors are part of the conversation.
    false
}

/// What the line editor asks while a line is typed.
struct Line {
    repl: Rc<RefCell<Repl>>,
}

impl Helper for Line {}

impl Completer for Line {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.repl.borrow().complete(&line[..position]))
    }
}

impl Validator for Line {
    fn validate(&self, ctx: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        // Two empty lines end what is not finished, and what is missing is told.
        let given_up = ctx.input().ends_with("\n\n");
        Ok(match !given_up && self.repl.borrow().is_open(ctx.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Hinter for Line {
    type Hint = String;
}

impl Highlighter for Line {}
