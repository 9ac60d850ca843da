//! `outlier gpus`: what is rented, what it costs, and its end.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::exit::tell;
use super::gpus_shell;
use super::table::{age, dollars, print_table};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::gpu::ledger::{Entry, Ledger, Life, Stage, now};
use crate::gpu::rent::{self, Reap};
use crate::gpu::{self, Provider};
use crate::remote::trust;
use crate::terminal;

#[derive(Args)]
pub(super) struct Gpus {
    #[command(subcommand)]
    action: Option<Action>,
    /// Asks the providers as well: machines of other projects and computers, and those that nobody
    /// knows of.
    #[arg(long)]
    all: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Gives machines back and waits until the provider's listing shows them no more.
    Terminate {
        /// Ids or names, as `outlier gpus` lists them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Gives back what runs that died have left behind.
    Reap,
    /// Opens a shell on a machine, its host key checked: outlier gpus ssh ID [COMMAND…]
    Ssh {
        id: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Prints what a machine has written since it was created.
    Logs { id: String },
}

/// What has been asked for so long ago and is not listed will not appear any more, seconds.
const GONE_SECONDS: f64 = 24.0 * 3600.0;

/// What the project knows of machines; a command that looks makes no file.
fn ledger() -> Result<Ledger> {
    Ledger::look(&PathBuf::from("results").join("gpus.sqlite"))
}

pub(super) fn gpus(gpus: &Gpus) -> Result<Exit> {
    trust::no_script();
    match &gpus.action {
        None if gpus.all => list_all(),
        None => list_known(),
        Some(Action::Terminate { ids }) => terminate(ids),
        Some(Action::Reap) => reap(),
        Some(Action::Ssh { id, command }) => {
            let entry = ledger()?.called(id)?.ok_or_else(|| {
                Error::not_found(format!("this project has no machine \"{id}\""))
                    .hint("`outlier gpus` lists its machines")
            })?;
            gpus_shell::open(id, &entry, command)
        }
        Some(Action::Logs { id }) => {
            let (provider, id) = find(id)?.ok_or_else(|| unknown(id))?;
            terminal::line(provider.logs(&id)?);
            Ok(Exit::Done)
        }
    }
}

const COLUMNS: &[&str] = &["id", "$/h", "$ so far", "state", "gpu", "age", "task", "provider", "name"];

fn row(entry: &Entry, state: &str) -> Vec<String> {
    vec![
        entry.id.clone().unwrap_or_else(|| "–".to_string()),
        dollars(entry.price),
        dollars(entry.cost_so_far()),
        state.to_string(),
        entry.gpu.clone(),
        age(now() - entry.since),
        entry.task.clone().unwrap_or_default(),
        entry.provider.short(),
        entry.name.clone(),
    ]
}

/// The stage, and whether anybody looks after the machine.
fn state(entry: &Entry) -> String {
    let stage = &match entry.ends_at() {
        Some(until) if until > now() => format!("{}, at most {} more", entry.stage.name(), age(until - now())),
        Some(_) => format!("{}, its time is over", entry.stage.name()),
        None => entry.stage.name().to_string(),
    };
    match (entry.stage, entry.owner.life(), entry.keep_running) {
        (Stage::Closed | Stage::Ending, ..) | (_, Life::Runs, _) => stage.to_string(),
        (_, _, true) => format!("{stage}, kept running"),
        (_, Life::Dead, false) => format!("{stage}, its run has died"),
        (_, Life::Foreign, false) => format!("{stage}, of {}", entry.owner.place()),
    }
}

/// What the ledger of this project knows.
fn list_known() -> Result<Exit> {
    let open = ledger()?.open_entries()?;
    if open.is_empty() {
        terminal::sentence("no machine of this project is known to be alive; `outlier gpus --all` asks the providers");
    } else {
        print_table(COLUMNS, open.iter().map(|entry| row(entry, &state(entry))).collect());
    }
    Ok(Exit::Done)
}

/// What the providers list under our names.
fn list_all() -> Result<Exit> {
    let ledger = ledger()?;
    let (mut rows, mut asked) = (Vec::new(), 0);
    let Reachable { providers, mut left_out } = reachable(&ledger)?;
    for provider in providers {
        let Some(listed) = listed(&*provider, &ledger)? else {
            left_out |= gpu::has_account(provider.id(), &ledger.all()?);
            continue;
        };
        asked += 1;
        for alive in listed {
            let machine = &alive.machine;
            rows.push(match &alive.entry {
                Some(entry) => {
                    let closed = entry.stage == Stage::Closed;
                    row(entry, &if closed { "ALIVE, though closed here".to_string() } else { state(entry) })
                }
                None => {
                    let created = humantime::parse_rfc3339_weak(&machine.created).ok();
                    let since = created.and_then(|time| time.elapsed().ok()).map(|since| since.as_secs_f64());
                    vec![
                        machine.id.clone(),
                        dollars(machine.price),
                        since.map_or_else(|| "–".to_string(), |since| dollars(since / 3600.0 * machine.price)),
                        "ORPHAN or of another project".to_string(),
                        machine.gpu.clone(),
                        since.map_or_else(|| "–".to_string(), age),
                        String::new(),
                        provider.id().to_string(),
                        machine.name.clone(),
                    ]
                }
            });
        }
    }
    match (rows.is_empty(), left_out) {
        (true, true) => terminal::sentence("no provider that answers lists a machine of ours"),
        (true, false) if asked == 0 => terminal::sentence(NOBODY_ASKED),
        (true, false) => terminal::sentence("no provider lists a machine of ours"),
        (false, _) => print_table(COLUMNS, rows),
    }
    // Not all, whatever was asked for.
    Ok(if left_out { Exit::Failed } else { Exit::Done })
}

/// What is said where there is nobody to ask.
const NOBODY_ASKED: &str =
    "no provider was asked for machines of ours: there is no RunPod key, and no cluster that answers";

/// Providers that can be asked.
struct Reachable {
    providers: Vec<Arc<dyn Provider>>,
    /// There is one with which this user may have machines, and which cannot be asked.
    left_out: bool,
}

/// Providers that this user has an account with, or that the ledger has open rows of.
fn reachable(ledger: &Ledger) -> Result<Reachable> {
    let open = ledger.open_entries()?;
    let (mut providers, mut left_out) = (Vec::new(), false);
    for id in gpu::providers(&open) {
        match gpu::provider(&id) {
            Ok(provider) => providers.push(provider),
            Err(error) if open.iter().any(|entry| entry.provider == id) => return Err(error),
            // Not a cluster, and nobody said that it is one.
            Err(error) if error.kind == Kind::NotFound => (),
            Err(error) => {
                left_out |= gpu::has_account(&id, &ledger.all()?);
                terminal::note(format!("{id}: left out: {error}"));
            }
        }
    }
    Ok(Reachable { providers, left_out })
}

/// What a provider lists under our names; None where it cannot be asked and need not be: it has no
/// machine of this project.
fn listed(provider: &dyn Provider, ledger: &Ledger) -> Result<Option<Vec<rent::Alive>>> {
    match rent::alive(provider, ledger) {
        Ok(alive) => Ok(Some(alive)),
        Err(error)
            if !provider.id().tenure().may_be_out_of_reach()
                && ledger.open_entries()?.iter().any(|entry| entry.provider == *provider.id()) =>
        {
            Err(error)
        }
        Err(error) => {
            terminal::note(format!("{}: left out: {error}", provider.id()));
            Ok(None)
        }
    }
}

/// The provider and its id of a machine: one the ledger knows, or one of ours that a provider
/// lists. None if there is none.
///
/// # Errors
/// Also if a provider that may have it has not answered.
fn find(id_or_name: &str) -> Result<Option<(Arc<dyn Provider>, String)>> {
    let ledger = ledger()?;
    if let Some(entry) = ledger.called(id_or_name)?
        && let Some(id) = entry.known_as()
    {
        return Ok(Some((gpu::provider(&entry.provider)?, id.to_string())));
    }
    let Reachable { providers, mut left_out } = reachable(&ledger)?;
    for provider in providers {
        let Ok(listed) = provider.list() else {
            left_out |= gpu::has_account(provider.id(), &ledger.all()?);
            continue;
        };
        let mut listed = listed.into_iter();
        if let Some(machine) = listed.find(|machine| machine.id == id_or_name || machine.name == id_or_name) {
            if !machine.name.starts_with(gpu::PREFIX) {
                let message = format!("{id_or_name} is called \"{}\": it was not made by this program", machine.name);
                return Err(Error::bad_argument(message).hint("it is left alone; use its provider's own tools"));
            }
            return Ok(Some((provider, machine.id)));
        }
    }
    match left_out {
        true => Err(Error::new(
            Kind::Service,
            format!("no machine \"{id_or_name}\" is known, and a provider has not answered"),
        )
        .hint(WHAT_THERE_IS)),
        false => Ok(None),
    }
}

const WHAT_THERE_IS: &str = "`outlier gpus --all` lists what there is";

fn unknown(id_or_name: &str) -> Error {
    Error::not_found(format!("no machine \"{id_or_name}\"")).hint(WHAT_THERE_IS)
}

/// Why a machine was not ended.
struct NotEnded {
    error: Error,
    /// The machine is, or may be, alive.
    alive: bool,
}

fn terminate(ids: &[String]) -> Result<Exit> {
    let ledger = ledger()?;
    let mut exit = Exit::Done;
    for id in ids {
        match end(&ledger, id, ledger.called(id)?) {
            Ok(line) => terminal::sentence(line),
            Err(NotEnded { error, alive }) => {
                let told = tell(&error);
                exit = match exit {
                    _ if alive => Exit::Leaked,
                    Exit::Done => told,
                    earlier => earlier,
                };
            }
        }
    }
    Ok(exit)
}

/// Ends the machine `id`, which has this row in the ledger. Returns what has happened, in words.
fn end(ledger: &Ledger, id: &str, entry: Option<Entry>) -> std::result::Result<String, NotEnded> {
    let alive = |error| NotEnded { error, alive: true };
    match entry {
        Some(entry) if entry.stage == Stage::Closed => Ok(format!("{id} has ended before")),
        Some(entry) => end_known(ledger, id, &entry).map_err(alive),
        None => {
            // What this program has not made is no machine of ours that is left.
            let found = find(id).map_err(|error| NotEnded { alive: error.kind != Kind::BadArgument, error })?;
            let (provider, there) = found.ok_or_else(|| NotEnded { error: unknown(id), alive: false })?;
            rent::end_unknown(&*provider, &provider.patience(), &there).map_err(alive)?;
            Ok(format!("{id} is given back"))
        }
    }
}

fn end_known(ledger: &Ledger, id: &str, entry: &Entry) -> Result<String> {
    let provider = gpu::provider(&entry.provider)?;
    rent::end(&*provider, ledger, &provider.patience(), &entry.name)?;
    let cost = ledger.find(&entry.name)?.map_or(0.0, |entry| entry.cost_so_far());
    let at_work = match entry.owner.life() {
        Life::Dead => String::new(),
        _ => format!("; it was in the care of {}", entry.owner.place()),
    };
    let given_back = format!("{id} is given back: {} in all{at_work}", dollars(cost));
    Ok(entry.tenure().ended(&entry.name, entry.id.as_deref(), given_back))
}

/// Whatever keeps a provider from being cleared: what is left over there lives on, and the others
/// are cleared all the same.
fn reap() -> Result<Exit> {
    let ledger = ledger()?;
    let (mut nothing, mut alive, mut asked) = (true, false, 0);
    let mut failed = |error: Error| match error.kind {
        Kind::Interrupted => Err(error),
        _ => {
            tell(&error);
            alive = true;
            Ok(())
        }
    };
    let mut providers = Vec::new();
    match reachable(&ledger) {
        Ok(reachable) => providers = reachable.providers,
        Err(error) => failed(error)?,
    }
    for provider in providers {
        match rent::reap(&*provider, &ledger, &provider.patience(), Reap::All) {
            Ok(lines) => {
                nothing &= lines.is_empty();
                lines.iter().for_each(terminal::sentence);
            }
            Err(error) => {
                failed(error)?;
                continue;
            }
        }
        let listed = match listed(&*provider, &ledger) {
            Ok(Some(listed)) => {
                asked += 1;
                listed
            }
            Ok(None) => continue,
            Err(error) => {
                failed(error)?;
                continue;
            }
        };
        for line in foreign(&*provider, &ledger, &listed)? {
            nothing = false;
            terminal::sentence(line);
        }
        let unknown = listed.into_iter().filter(|alive| alive.entry.is_none());
        for alive in unknown {
            terminal::sentence(format!(
                "{} ({}) is not known to this project and left alone: `outlier gpus terminate {0}` ends it",
                alive.machine.id, alive.machine.name
            ));
        }
    }
    if nothing && !alive {
        match asked {
            0 => terminal::sentence(format!("nothing is left over that this project knows of; {NOBODY_ASKED}")),
            _ => terminal::sentence("nothing is left over"),
        }
    }
    Ok(if alive { Exit::Leaked } else { Exit::Done })
}

/// Machines of other computers and containers are told of and left alone; where the provider has
/// had none for long, the row is closed.
fn foreign(provider: &dyn Provider, ledger: &Ledger, listed: &[rent::Alive]) -> Result<Vec<String>> {
    let ours = |entry: &Entry| entry.provider == *provider.id() && entry.owner.life() == Life::Foreign;
    let open = ledger.open_entries()?.into_iter().filter(|entry| ours(entry) && !entry.keep_running);
    let told = open.map(|entry| {
        let (name, place) = (entry.id.as_ref().unwrap_or(&entry.name), entry.owner.place());
        let there =
            listed.iter().any(|alive| alive.machine.name == entry.name || Some(&alive.machine.id) == entry.id.as_ref());
        if there || now() - entry.since < GONE_SECONDS {
            return Ok(format!(
                "{name} ({}) is in the care of {place}, which cannot be seen from here, and left alone: \
                 `outlier gpus terminate {name}` ends it",
                entry.gpu
            ));
        }
        ledger.closed(&entry.name)?;
        Ok(format!("{name} ({}) was in the care of {place} and is there no more", entry.gpu))
    });
    told.collect()
}
