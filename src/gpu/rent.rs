//! The life of a rented machine: requested, created, reached, terminated; and the machines that
//! dead processes left behind.

use std::time::{Duration, Instant};

use rand::Rng;

use super::bounded::{Limits, within};
use super::failure::Failure;
use super::ledger::{Entry, Ledger, Purpose, Stage, now};
use super::patience::Patience;
use super::provider::{Description, Offer, PREFIX, Provider, Reached, State, Want};
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress, doze, interrupt_requested, note};

/// The shortest time in hours for which starting a machine is worth the money.
pub const LEAST_HOURS: f64 = 0.1;
/// The shortest time in which a machine may answer its first command.
const LEAST_ANSWER: Duration = Duration::from_secs(1);
/// The same once the user has asked to stop.
const HURRIED_ANSWER: Duration = Duration::from_secs(2);
/// A wait for the end of a machine that takes longer is told of.
const UNTOLD: Duration = Duration::from_secs(5);
/// The longest interval of queries once the user has asked to stop.
const HURRIED_POLL: Duration = Duration::from_secs(1);

/// A machine that can be reached.
pub struct Rented {
    pub name: String,
    pub id: String,
    pub offer: Offer,
    /// USD per hour.
    pub price: f64,
    /// Time of the request, in seconds since 1970.
    pub since: f64,
    pub reached: Reached,
}

/// The parameters of renting: provider, ledger and purpose.
pub struct Renting<'a> {
    pub provider: &'a dyn Provider,
    pub ledger: &'a Ledger,
    pub patience: &'a Patience,
    pub purpose: &'a Purpose,
    pub public_key: &'a str,
    pub progress: &'a dyn Progress,
}

/// `outlier-<run>-<six characters>`, at most 60 characters.
fn unique_name(run: &str) -> String {
    let run: String =
        run.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(40).collect();
    format!("{PREFIX}{run}-{:06x}", rand::rng().random::<u32>() & 0xff_ffff)
}

impl Renting<'_> {
    fn say(&self, text: String) {
        self.progress.event(Event::Warning(text));
    }

    /// Tries the offers, best first, until a machine can be reached.
    pub fn rent(&self, want: &Want) -> Result<Rented> {
        let offers = self.provider.offers(want)?;
        if offers.is_empty() {
            return Err(Error::of(Failure::NothingOnOffer(self.provider.id().to_string())));
        }
        let mut last = None;
        for offer in offers {
            if self.progress.interrupted() {
                return Err(Error::interrupted());
            }
            affordable(&offer, want)?;
            for _ in 0..self.patience.hosts {
                let error = match self.one(&offer, want) {
                    Ok(rented) => return Ok(rented),
                    Err(error) => error,
                };
                // One host failed. Another of the same kind may work.
                let host = error.kind == Kind::Lost;
                if !host && error.kind != Kind::NoCapacity {
                    return Err(error);
                }
                self.say(format!("{} ({}, ${:.2}/h): {}", offer.gpu, offer.cloud, offer.price, error.message));
                last = Some(error);
                if !host {
                    break;
                }
            }
        }
        Err(last.expect("at least one offer was tried"))
    }

    fn one(&self, offer: &Offer, want: &Want) -> Result<Rented> {
        let (name, since) = (unique_name(&self.purpose.run), now());
        self.ledger.intend(&name, offer, self.purpose)?;
        let created = match self.provider.create(&name, offer, want, self.public_key) {
            Ok(created) => created,
            Err(error) if is_open(error.kind) => match self.by_name(&name) {
                // The machine exists, in spite of the error.
                Ok(Some(created)) => created,
                Ok(None) => {
                    self.ledger.closed(&name)?;
                    return Err(Error::of(Failure::NotCreated(error.message)));
                }
                // It is uncertain whether the machine exists. The row stays open, and `reap`
                // searches again.
                Err(_) if self.progress.interrupted() => {
                    let (provider, message) = (self.provider.id(), error.message);
                    self.say(format!(
                        "{provider}: {message}; whether {name} was created is open, and the next run here that uses \
                         {provider} looks for it and ends it"
                    ));
                    return Err(Error::interrupted());
                }
                Err(_) => return Err(Error { kind: Kind::Service, ..error }),
            },
            Err(error) => {
                self.ledger.closed(&name)?;
                return Err(error);
            }
        };
        self.ledger.created(&name, &created.id, created.price)?;
        let reached = self.expensive(&created, want).and_then(|()| self.wait(&created.id));
        match reached {
            Ok(reached) => {
                self.ledger.ready(&name, reached.ssh.as_ref(), &reached.fingerprints)?;
                Ok(Rented { name, id: created.id, offer: offer.clone(), price: created.price, since, reached })
            }
            Err(error) => {
                self.end(&name)?;
                Err(error)
            }
        }
    }

    /// The price in the answer is the valid one.
    fn expensive(&self, created: &Description, want: &Want) -> Result<()> {
        match want.max_price {
            Some(most) if created.price > most + 1e-9 => {
                Err(Error::of(Failure::TooExpensive { price: created.price, max_price: most }))
            }
            _ => Ok(()),
        }
    }

    /// Searches for a machine whose creation is uncertain, for a limited time.
    fn by_name(&self, name: &str) -> Result<Option<Description>> {
        let begin = Instant::now();
        loop {
            if let Some(found) = self.provider.list()?.into_iter().find(|machine| machine.name == name) {
                return Ok(Some(found));
            }
            if begin.elapsed() > self.patience.appear {
                return Ok(None);
            }
            if self.progress.interrupted() {
                return Err(Error::interrupted());
            }
            self.pause();
        }
    }

    fn wait(&self, id: &str) -> Result<Reached> {
        let begin = Instant::now();
        let mut running: Option<Instant> = None;
        let mut told = Vec::new();
        let mut silent: Option<Instant> = None;
        // The reason why the last attempt failed.
        let mut closed: Option<String> = None;
        loop {
            if self.progress.interrupted() {
                return Err(Error::interrupted());
            }
            let described = match self.provider.describe(id) {
                // A retry loses nothing, while giving up may lose a place in the queue.
                Err(error)
                    if is_open(error.kind) && silent.get_or_insert_with(Instant::now).elapsed() < self.patience.end =>
                {
                    if !self.progress.interrupted() && !told.contains(&error.message) {
                        let most = self.patience.end.as_secs();
                        self.say(format!("{id}: {}; asking again, for at most {most} s", error.message));
                        told.push(error.message);
                    }
                    self.pause();
                    continue;
                }
                described => described?,
            };
            silent = None;
            let Some(machine) = described else {
                let log = self.provider.logs(id).unwrap_or_default();
                let last_line = log.trim().lines().next_back().map(str::to_string);
                return Err(Error::of(Failure::WentAway { last_line }));
            };
            if machine.state == State::Starting && !machine.why.is_empty() && !told.contains(&machine.why) {
                self.say(format!("{id}: {}", machine.why));
                told.push(machine.why.clone());
            }
            match machine.state {
                State::Running => {
                    let since = *running.get_or_insert_with(Instant::now);
                    if let Some(reached) = self.provider.reach(&machine, &self.purpose.key_file)? {
                        let whole = self.patience.reach.saturating_sub(since.elapsed()).max(LEAST_ANSWER);
                        let limits = Limits { whole, at_work: HURRIED_ANSWER, last: HURRIED_ANSWER };
                        match within(&limits, &reached.machine, "true", "", "a first command") {
                            Ok(finished) if finished.code == 0 => return Ok(reached),
                            Ok(finished) => closed = Some(format!("a command failed: {}", finished.complaint())),
                            // It is not the created machine, or it rejects us. Another offer is
                            // tried.
                            Err(error) if error.kind == Kind::Auth => {
                                return Err(Error { kind: Kind::Lost, ..error });
                            }
                            Err(error) => closed = Some(error.message),
                        }
                    }
                    let reason = closed.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                    if since.elapsed() > self.patience.reach / 6 && !told.contains(&reason) {
                        let most = self.patience.reach.as_secs();
                        self.say(format!("{id}: it runs; waiting until it can be reached, at most {most} s{reason}"));
                        told.push(reason);
                    }
                    if since.elapsed() > self.patience.reach {
                        return Err(Error::of(Failure::NotReached { waited: since.elapsed(), reason: closed }));
                    }
                }
                State::Starting if begin.elapsed() > self.patience.start => {
                    return Err(Error::of(Failure::NotStarted { waited: begin.elapsed() }));
                }
                State::Starting => (),
                State::Stopped | State::Failed => {
                    let why = Some(machine.why).filter(|why| !why.is_empty());
                    return Err(Error::of(Failure::Stopped(why)));
                }
            }
            self.pause();
        }
    }

    /// Waits until the next query, or until the user interrupts.
    fn pause(&self) {
        doze(self.patience.poll, || self.progress.interrupted());
    }

    fn end(&self, name: &str) -> Result<()> {
        end(self.provider, self.ledger, self.patience, name)
    }
}

/// True if it is uncertain whether a machine was created.
fn is_open(kind: Kind) -> bool {
    matches!(kind, Kind::Timeout | Kind::Lost | Kind::Service)
}

/// Checks that the money lasts for the work. The machine always ends itself when it is spent.
fn affordable(offer: &Offer, want: &Want) -> Result<()> {
    let hours = want.expected_hours.unwrap_or(LEAST_HOURS);
    match want.max_cost {
        Some(left) if offer.price * hours > left + 1e-9 => {
            Err(Error::of(Failure::Unaffordable { gpu: offer.gpu.clone(), price: offer.price, hours, left }))
        }
        _ => Ok(()),
    }
}

/// Terminates the machine `name`, and returns when the provider's listing no longer contains it.
pub fn end(provider: &dyn Provider, ledger: &Ledger, patience: &Patience, name: &str) -> Result<()> {
    let Some(entry) = ledger.find(name)?.filter(|entry| entry.stage != Stage::Closed) else { return Ok(()) };
    ledger.ending(name)?;
    let begin = Instant::now();
    let id = entry.known_as();
    let mut asked: Option<Instant> = None;
    let (mut limit, mut hurried, mut told) = (patience.end, false, false);
    loop {
        let listed = provider.list();
        let there = match &listed {
            Ok(machines) => machines.iter().find(|machine| machine.name == name || Some(machine.id.as_str()) == id),
            Err(_) => None,
        };
        match (&listed, there) {
            // A listing may lag behind a creation: absence counts only after a termination request.
            (Ok(_), None) if asked.is_some() || id.is_none() => return ledger.closed(name),
            (Ok(_), Some(machine)) if asked.is_none_or(|since| since.elapsed() > 4 * patience.poll) => {
                asked = provider.terminate(&machine.id).ok().map(|()| Instant::now()).or(asked);
            }
            (_, None) if asked.is_none() => {
                if let Some(id) = id
                    && provider.terminate(id).is_ok()
                {
                    asked = Some(Instant::now());
                }
            }
            _ => (),
        }
        let unreached = entry.tenure().may_be_out_of_reach() && listed.is_err();
        if !hurried && interrupt_requested() {
            (hurried, limit) = (true, limit.min(begin.elapsed() + patience.hurry));
        }
        // What was asked to end, and is hidden by a service that says nothing, is not waited for.
        let in_vain = hurried && patience.hurry < patience.end && asked.is_some() && listed.is_err();
        if unreached || in_vain || begin.elapsed() > limit {
            let reason = listed.err().map_or_else(|| "it is still listed".to_string(), |error| error.message);
            return Err(Error::of(entry.tenure().not_ended(name, id, entry.price, reason)));
        }
        if !told && begin.elapsed() > UNTOLD {
            let (provider, left) = (provider.id(), limit.saturating_sub(begin.elapsed()).as_secs());
            note(&format!("{}: waiting until {provider} lists it no more, at most {left} s", id.unwrap_or(name)));
            told = true;
        }
        std::thread::sleep(if hurried { patience.poll.min(HURRIED_POLL) } else { patience.poll });
    }
}

/// Terminates a machine that is in no ledger here, and returns when the provider no longer lists
/// it.
pub fn end_unknown(provider: &dyn Provider, patience: &Patience, id: &str) -> Result<()> {
    let begin = Instant::now();
    provider.terminate(id)?;
    while provider.list()?.iter().any(|machine| machine.id == id) {
        if begin.elapsed() > patience.end {
            return Err(Error::of(Failure::StillListed(id.to_string())));
        }
        std::thread::sleep(patience.poll);
        provider.terminate(id)?;
    }
    Ok(())
}

/// Which of the machines left behind are terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// Those that nobody will take over.
    Useless,
    All,
}

/// Terminates the machines of processes that have certainly ended. Processes on other computers and
/// containers may be running, and otherwise their machines end themselves. Returns a line per
/// action.
pub fn reap(provider: &dyn Provider, ledger: &Ledger, patience: &Patience, which: Reap) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut left = ledger.open_entries()?;
    left.retain(|entry| entry.provider == *provider.id() && entry.owner.is_dead());
    let is_over = |entry: &Entry| entry.ends_at().is_some_and(|time| time < now());
    left.retain(|entry| !entry.keep_running || entry.stage == Stage::Ending || is_over(entry));
    // A machine that is ready for a task may still be taken over.
    left.retain(|entry| which == Reap::All || entry.task.is_none() || entry.stage != Stage::Ready);
    for entry in left {
        // A machine that was about to be created may appear a little later.
        let young = now() - entry.since < patience.appear.as_secs_f64();
        if entry.stage == Stage::Intended && young {
            doze(patience.appear, interrupt_requested);
            if interrupt_requested() {
                return Err(Error::interrupted());
            }
        }
        end(provider, ledger, patience, &entry.name)?;
        let cost = ledger.find(&entry.name)?.map_or(0.0, |entry| entry.cost_so_far());
        lines.push(entry.tenure().reaped(&entry.name, entry.id.as_deref(), &entry.gpu, cost));
    }
    Ok(lines)
}

/// A machine with our prefix in the provider's listing, with its row in the ledger.
pub struct Alive {
    pub machine: Description,
    pub entry: Option<Entry>,
}

/// All machines with our prefix in the provider's listing.
pub fn alive(provider: &dyn Provider, ledger: &Ledger) -> Result<Vec<Alive>> {
    let ours = provider.list()?.into_iter().filter(|machine| machine.name.starts_with(PREFIX));
    ours.map(|machine| Ok(Alive { entry: ledger.find(&machine.name)?, machine })).collect()
}

#[cfg(test)]
mod tests;
