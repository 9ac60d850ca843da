//! The table of the ledger: how it is made, and how a file of an earlier version becomes one of
//! this version.

use rusqlite::Connection;

/// A column that the first files did not have.
const TASK: &str = "task";
const COLUMNS: [&str; 16] = [
    "name",
    "run",
    TASK,
    "provider",
    "id",
    "gpu",
    "price",
    "stage",
    "since",
    "until",
    "cost",
    "keep_running",
    "key_file",
    "ssh",
    "fingerprints",
    "owner",
];

/// Makes the table in a new file, and adds the column of tasks to a file of the time before there
/// were any, whose machines may still cost money. Returns a column that is missing otherwise: the
/// file is of a version that this one does not know.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<Option<&'static str>> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS machines (
             name TEXT PRIMARY KEY, run TEXT NOT NULL, task TEXT, provider TEXT NOT NULL, id TEXT, gpu TEXT NOT NULL,
             price REAL NOT NULL, stage TEXT NOT NULL, since REAL NOT NULL, until REAL, cost REAL,
             keep_running INTEGER NOT NULL DEFAULT 0, key_file TEXT, ssh TEXT, fingerprints TEXT,
             owner TEXT NOT NULL
         );",
    )?;
    let there = columns(db)?;
    let missing = |column: &&&str| !there.iter().any(|known| known == **column);
    match COLUMNS.iter().filter(missing).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        // Another process may add it at the same time.
        [&TASK] => match db.execute_batch("ALTER TABLE machines ADD COLUMN task TEXT;") {
            Err(error) if !columns(db)?.iter().any(|known| known == TASK) => Err(error),
            _ => Ok(None),
        },
        [column, ..] => Ok(Some(column)),
    }
}

fn columns(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names = db.prepare("SELECT name FROM pragma_table_info('machines')")?;
    names.query_map([], |row| row.get(0))?.collect()
}
