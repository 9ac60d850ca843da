//! Queries about several files at the same time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::client::{self, Http, Patience};
use super::resolve::{Address, RemoteFile};
use crate::error::{Error, Result};
use crate::hub::failure::Failure;

/// Number of simultaneous queries.
const QUESTIONS: usize = 32;

/// Queries the hub for several files. One answer per name.
pub(crate) fn resolve_all<'a>(
    http: &Arc<Http>,
    address: &Arc<Address>,
    revision: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Result<Arc<RemoteFile>>>> {
    ask_all(http, address, revision, names, Patience::default)
}

/// The same with another `Patience`.
pub(crate) fn ask_all<'a>(
    http: &Arc<Http>,
    address: &Arc<Address>,
    revision: &str,
    names: impl Iterator<Item = &'a str>,
    patience: fn() -> Patience,
) -> Result<Vec<Result<Arc<RemoteFile>>>> {
    let (http, address, revision) = (http.clone(), address.clone(), revision.to_string());
    let names: Vec<_> = names.map(str::to_string).collect();
    client::wait(async move {
        let at_once = Arc::new(Semaphore::new(QUESTIONS));
        let ask = |name: String| {
            let (http, address, revision, at_once) = (http.clone(), address.clone(), revision.clone(), at_once.clone());
            tokio::spawn(async move {
                let _place = at_once.acquire().await;
                RemoteFile::resolve(&http, &address, &revision, &name, patience()).await.map(Arc::new)
            })
        };
        let tasks: Vec<_> = names.into_iter().map(ask).collect();
        let mut found = Vec::new();
        for task in tasks {
            found.push(task.await.map_err(|e| Error::of(Failure::Unasked(e)))?);
        }
        Ok(found)
    })
}
