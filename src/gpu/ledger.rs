//! The ledger of machines that may cost money. A machine is recorded on disk before its provider is
//! asked for it.
//!
//! A row is opened with the machine's unique name before the request, and closed when the
//! provider's own listing no longer contains the machine. Several processes share the file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::failure::Failure;
use super::id::ProviderId;
use super::ledger_table as table;
pub use super::owner::{Life, Owner};
use super::provider::{Offer, SshAddress};
use super::tenure::Tenure;
use crate::error::{Error, Result};

/// How long one process waits for another's write.
const PATIENCE: Duration = Duration::from_secs(20);

/// The stage of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// About to be created. Only a search for its name shows whether it was.
    Intended,
    Created,
    Ready,
    /// Its termination was requested and is not confirmed.
    Ending,
    /// The provider's listing no longer contains it.
    Closed,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Intended, Self::Created, Self::Ready, Self::Ending, Self::Closed];

    pub fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Created => "created",
            Self::Ready => "ready",
            Self::Ending => "ending",
            Self::Closed => "closed",
        }
    }
}

/// A machine that was ever requested.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Unique, chosen by us.
    pub name: String,
    /// The run that requested it.
    pub run: String,
    /// Its task: a later run of the same task takes the machine over.
    pub task: Option<String>,
    pub provider: ProviderId,
    /// The provider's id, once it is known.
    pub id: Option<String>,
    pub gpu: String,
    /// USD per hour.
    pub price: f64,
    pub stage: Stage,
    /// Time of the request, in seconds since 1970.
    pub since: f64,
    /// Time of its end. For a user's own machine with a running worker, the latest end of the
    /// worker.
    pub until: Option<f64>,
    /// Total cost in USD, once it is closed.
    pub cost: Option<f64>,
    /// True if it outlives its run on purpose.
    pub keep_running: bool,
    pub key_file: Option<PathBuf>,
    pub ssh: Option<SshAddress>,
    pub fingerprints: Vec<String>,
    #[serde(skip)]
    pub owner: Owner,
}

impl Entry {
    /// Cost in USD until now, or in total.
    pub fn cost_so_far(&self) -> f64 {
        let hours = (self.until.unwrap_or_else(now) - self.since).max(0.0) / 3600.0;
        self.cost.unwrap_or(if self.id.is_some() { hours * self.price } else { 0.0 })
    }

    /// What it is to its user. The row of a user's own machine is that of a worker.
    pub fn tenure(&self) -> Tenure {
        self.provider.tenure()
    }

    /// Its id or name at the provider, once it is known.
    pub fn known_as(&self) -> Option<&str> {
        self.tenure().known_as(&self.name, self.id.as_deref())
    }

    /// The time at which it ends itself, in seconds since 1970, if that is known.
    pub fn ends_at(&self) -> Option<f64> {
        self.tenure().ends_at(self.until)
    }
}

/// The run and the task of a machine.
#[derive(Clone, Debug)]
pub struct Purpose {
    pub run: String,
    pub task: Option<String>,
    pub key_file: PathBuf,
    pub keep_running: bool,
}

pub struct Ledger {
    path: PathBuf,
    /// Somebody only looks, and the file was not there.
    is_missing: bool,
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Ledger {
    /// Opens the file, which is created if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read and written, or another version has made it.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| {
                Error::io(format!("creating {}", folder.display()), &e).or_hint("is the folder above it writable?")
            })?;
        }
        // SQLite would follow a link.
        if path.is_symlink() {
            return Err(Error::of(Failure::LedgerIsLink(path.to_path_buf())));
        }
        let ledger = Self { path: path.to_path_buf(), is_missing: false };
        match ledger.with(table::prepare)? {
            Some(column) => Err(Error::of(Failure::LedgerOfOthers { path: ledger.path, column })),
            None => Ok(ledger),
        }
    }

    /// Opens the file for reading. A missing file is not created, and has no machines.
    pub fn look(path: &Path) -> Result<Self> {
        match path.symlink_metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self { path: path.to_path_buf(), is_missing: true }),
            _ => Self::open(path),
        }
    }

    /// Whether there is no row to be read.
    fn is_empty(&self) -> bool {
        self.is_missing && !self.path.exists()
    }

    /// A connection per use: threads and processes need not know of each other.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let run = || {
            let db = Connection::open(&self.path)?;
            db.busy_timeout(PATIENCE)?;
            // The other modes need shared memory, which different computers do not have. A database
            // in use stays as it is.
            let _ = db.pragma_update(None, "journal_mode", "DELETE");
            // A row for a requested machine must survive a power failure.
            db.pragma_update(None, "synchronous", "FULL")?;
            work(&db)
        };
        run().map_err(|source| Error::of(Failure::Ledger { path: self.path.clone(), source }))
    }

    fn change(&self, name: &str, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<()> {
        let changed = self.with(|db| {
            let mut all: Vec<&dyn rusqlite::ToSql> = vec![&name];
            all.extend_from_slice(values);
            db.execute(&format!("UPDATE machines SET {sql} WHERE name = ?1"), all.as_slice())
        })?;
        match changed {
            1 => Ok(()),
            _ => Err(Error::of(Failure::NotInLedger(name.to_string()))),
        }
    }

    /// Opens a row, before the provider is asked.
    pub fn intend(&self, name: &str, offer: &Offer, purpose: &Purpose) -> Result<()> {
        let Purpose { run, task, key_file, keep_running } = purpose;
        let Offer { gpu, price, .. } = offer;
        let (provider, key_file) = (offer.provider.stored(), key_file.display().to_string());
        let owner = Owner::this_process();
        let owner = owner.text();
        let values = params![name, run, task, provider, gpu, price, now(), key_file, keep_running, owner];
        let sql = "INSERT INTO machines
             (name, run, task, provider, gpu, price, stage, since, key_file, keep_running, owner)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'intended', ?7, ?8, ?9, ?10)";
        self.with(|db| db.execute(sql, values)).map(|_| ())
    }

    /// Opens a row for a worker on the user's own machine `provider`, called `id`, before it is
    /// started. The worker of a task has the same name each time, and its row is the latest one's.
    pub fn lent(&self, name: &str, provider: &ProviderId, id: &str, purpose: &Purpose, until: f64) -> Result<()> {
        let owner = Owner::this_process();
        let owner = owner.text();
        let Purpose { run, task, keep_running, .. } = purpose;
        let values = params![name, run, task, provider.stored(), id, now(), until, keep_running, owner];
        let sql = "INSERT OR REPLACE INTO machines
             (name, run, task, provider, id, gpu, price, stage, since, until, keep_running, owner)
             VALUES (?1, ?2, ?3, ?4, ?5, '', 0, 'created', ?6, ?7, ?8, ?9)";
        self.with(|db| db.execute(sql, values)).map(|_| ())
    }

    /// Machines that are ready for `task` and whose process has certainly ended.
    pub fn left_over(&self, provider: &ProviderId, task: &str) -> Result<Vec<Entry>> {
        let mut entries = self.open_entries()?;
        entries.retain(|entry| entry.provider == *provider && entry.task.as_deref() == Some(task));
        entries.retain(|entry| entry.stage == Stage::Ready && entry.owner.is_dead());
        Ok(entries)
    }

    /// Makes this process the owner of a machine. False if another process was quicker.
    pub fn take_over(&self, entry: &Entry, run: &str) -> Result<bool> {
        let this = Owner::this_process();
        let (owner, before) = (this.text(), entry.owner.text());
        let sql = "UPDATE machines SET owner = ?2, run = ?3 WHERE name = ?1 AND owner = ?4 AND stage = 'ready'";
        let changed = self.with(|db| db.execute(sql, params![entry.name, owner, run, before]))?;
        Ok(changed == 1)
    }

    pub fn created(&self, name: &str, id: &str, price: f64) -> Result<()> {
        self.change(name, "stage = 'created', id = ?2, price = ?3", &[&id, &price])
    }

    pub fn ready(&self, name: &str, ssh: Option<&SshAddress>, fingerprints: &[String]) -> Result<()> {
        let json = |value: serde_json::Value| value.to_string();
        let ssh = ssh.map(|ssh| json(serde_json::json!(ssh)));
        self.change(
            name,
            "stage = 'ready', ssh = ?2, fingerprints = ?3",
            &[&ssh, &json(serde_json::json!(fingerprints))],
        )
    }

    pub fn ending(&self, name: &str) -> Result<()> {
        self.change(name, "stage = 'ending'", &[])
    }

    /// Lets the machine outlive its run.
    pub fn keep(&self, name: &str) -> Result<()> {
        self.change(name, "keep_running = 1", &[])
    }

    /// Closes the row, because the listing no longer contains the machine.
    pub fn closed(&self, name: &str) -> Result<()> {
        let Some(entry) = self.find(name)? else { return Ok(()) };
        let closed = Entry { until: Some(entry.until.map_or_else(now, |until| until.min(now()))), ..entry };
        self.change(name, "stage = 'closed', until = ?2, cost = ?3", &[&closed.until, &closed.cost_so_far()])
    }

    pub fn find(&self, name_or_id: &str) -> Result<Option<Entry>> {
        if self.is_empty() {
            return Ok(None);
        }
        self.with(|db| {
            let sql = "SELECT * FROM machines WHERE name = ?1 OR id = ?1
                ORDER BY name <> ?1, stage = 'closed', since DESC";
            db.query_row(sql, [name_or_id], entry).optional()
        })
    }

    /// The machine with this name, or with this id if no other open one has it. A user's own
    /// machine has one id, and a row per worker.
    ///
    /// # Errors
    /// `bad_argument` if several match. The hint lists them.
    pub fn called(&self, name_or_id: &str) -> Result<Option<Entry>> {
        let found = self.find(name_or_id)?;
        let same = |entry: &Entry| entry.id.as_deref() == Some(name_or_id);
        if found.as_ref().is_none_or(|entry| entry.name == name_or_id) {
            return Ok(found);
        }
        let open: Vec<Entry> = self.open_entries()?.into_iter().filter(same).collect();
        if open.len() < 2 {
            return Ok(found);
        }
        let names = open.into_iter().map(|entry| entry.name).collect();
        Err(Error::of(Failure::SeveralWorkers { id: name_or_id.to_string(), names }))
    }

    /// All open rows, oldest first.
    pub fn open_entries(&self) -> Result<Vec<Entry>> {
        self.select("WHERE stage <> 'closed' ORDER BY since")
    }

    pub fn all(&self) -> Result<Vec<Entry>> {
        self.select("ORDER BY since")
    }

    /// Total cost of a run's machines in USD.
    pub fn cost_of_run(&self, run: &str) -> Result<f64> {
        Ok(self
            .all()?
            .iter()
            .filter(|entry| entry.run == run)
            .map(Entry::cost_so_far)
            .fold(0.0, |sum, cost| sum + cost))
    }

    fn select(&self, which: &str) -> Result<Vec<Entry>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.with(|db| {
            let mut statement = db.prepare(&format!("SELECT * FROM machines {which}"))?;
            statement.query_map([], entry)?.collect()
        })
    }
}

fn entry(row: &Row) -> rusqlite::Result<Entry> {
    let json = |column| row.get::<_, Option<String>>(column);
    let stage: String = row.get("stage")?;
    Ok(Entry {
        name: row.get("name")?,
        run: row.get("run")?,
        task: row.get("task")?,
        provider: row.get::<_, String>("provider")?.into(),
        id: row.get("id")?,
        gpu: row.get("gpu")?,
        price: row.get("price")?,
        // A row with an unknown stage counts as open, so that it is looked after.
        stage: Stage::ALL.into_iter().find(|known| known.name() == stage).unwrap_or(Stage::Ending),
        since: row.get("since")?,
        until: row.get("until")?,
        cost: row.get("cost")?,
        keep_running: row.get("keep_running")?,
        key_file: row.get::<_, Option<String>>("key_file")?.map(PathBuf::from),
        ssh: json("ssh")?.and_then(|text| serde_json::from_str(&text).ok()),
        fingerprints: json("fingerprints")?.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        owner: Owner::parse(&row.get::<_, String>("owner")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn offer() -> Offer {
        Offer {
            provider: ProviderId::RunPod,
            gpu: "NVIDIA A40".to_string(),
            gpu_count: 1,
            vram_gb: 48.0,
            cloud: "secure".to_string(),
            price: 3.6,
            stock: "high".to_string(),
        }
    }

    fn purpose(task: Option<&str>) -> Purpose {
        let task = task.map(str::to_string);
        Purpose { run: "a".to_string(), task, key_file: PathBuf::from("k"), keep_running: false }
    }

    #[test]
    fn a_row_follows_the_life_of_a_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/gpus.sqlite");
        let ledger = Ledger::open(&path).unwrap();
        ledger.intend("outlier-a-1", &offer(), &purpose(None)).unwrap();
        assert_eq!(ledger.find("outlier-a-1").unwrap().unwrap().cost_so_far(), 0.0, "nothing is created yet");
        ledger.created("outlier-a-1", "pod1", 7.2).unwrap();
        let ssh = SshAddress { user: "root".to_string(), host: "h".to_string(), port: 7 };
        ledger.ready("outlier-a-1", Some(&ssh), &["SHA256:x".to_string()]).unwrap();
        // As another process reads it.
        let entry = Ledger::open(&path).unwrap().find("pod1").unwrap().unwrap();
        assert_eq!((entry.stage, entry.price, entry.ssh), (Stage::Ready, 7.2, Some(ssh)));
        assert_eq!(entry.fingerprints, ["SHA256:x"]);
        assert_eq!(entry.owner.life(), Life::Runs);
        ledger.closed("outlier-a-1").unwrap();
        assert!(ledger.open_entries().unwrap().is_empty());
        let closed = ledger.find("outlier-a-1").unwrap().unwrap();
        assert_eq!(closed.cost, Some(closed.cost_so_far()));
    }

    #[test]
    fn only_one_takes_over_and_only_from_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("l")).unwrap();
        ledger.intend("n", &offer(), &purpose(Some("t"))).unwrap();
        ledger.created("n", "id", 1.0).unwrap();
        ledger.ready("n", None, &[]).unwrap();
        assert_eq!(ledger.left_over(&ProviderId::RunPod, "t").unwrap(), [], "its process, this one, is alive");
        ledger.change("n", "owner = ?2", &[&"17 99 elsewhere - another-boot -"]).unwrap();
        assert_eq!(
            ledger.left_over(&ProviderId::RunPod, "t").unwrap(),
            [],
            "another computer's process cannot be seen from here"
        );
        ledger.change("n", "owner = ?2", &[&Owner::dead().text()]).unwrap();
        assert_eq!(ledger.left_over(&ProviderId::RunPod, "other").unwrap(), []);
        let left = ledger.left_over(&ProviderId::RunPod, "t").unwrap();
        assert!(ledger.take_over(&left[0], "b").unwrap());
        assert!(!ledger.take_over(&left[0], "c").unwrap());
        assert_eq!(ledger.find("n").unwrap().unwrap().run, "b");
    }

    #[test]
    fn workers_on_one_machine_are_told_apart_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("l")).unwrap();
        let own = "ssh:box".parse().unwrap();
        let lent = |name: &str| ledger.lent(name, &own, "box", &purpose(None), now() + 60.0).unwrap();
        lent("outlier-a-1");
        ledger.closed("outlier-a-1").unwrap();
        lent("outlier-a-2");
        let called = |name: &str| ledger.called(name).map(|entry| entry.map(|entry| entry.name));
        assert_eq!(called("box").unwrap().as_deref(), Some("outlier-a-2"), "the one that is at work");
        assert_eq!(called("outlier-a-1").unwrap().as_deref(), Some("outlier-a-1"));
        lent("outlier-a-3");
        assert!(called("box").unwrap_err().hint.unwrap().contains("outlier-a-2, outlier-a-3"));
        assert_eq!(called("none").unwrap(), None);
        // The worker of a task has the same name again.
        lent("outlier-a-1");
        let again = ledger.find("outlier-a-1").unwrap().unwrap();
        assert!(again.stage == Stage::Created && again.cost.is_none() && again.until > Some(now()));
    }

    #[test]
    fn names_are_unique_and_unknown_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("l")).unwrap();
        ledger.intend("n", &offer(), &purpose(None)).unwrap();
        assert!(ledger.intend("n", &offer(), &purpose(None)).is_err());
        assert_eq!(ledger.created("m", "id", 1.0).unwrap_err().kind, Kind::NotFound);
    }
}
