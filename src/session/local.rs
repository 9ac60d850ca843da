//! This machine: requests are carried out in this process, each `Op` in its own way.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Op, Reply, Session};
use crate::error::{Error, Result};
use crate::home;
use crate::hub::{self, Access};
use crate::memory;
use crate::plain::plain;
use crate::progress::{Event, Progress};
use crate::record::{LoadArgs, TokenSource};
use crate::weights::{self, OpenModel};
use crate::{engine, miniature, text};

/// Keeps opened models (headers, not weights) by what they were opened with, in that order.
#[derive(Default)]
pub struct Local {
    models: Mutex<Vec<(LoadArgs, Arc<OpenModel>)>>,
}

impl Session for Local {
    fn call(&self, op: Op, progress: &dyn Progress) -> Result<Reply> {
        match op {
            Op::Load(args) => {
                let model = self.open(&args, progress)?;
                model.notes.iter().for_each(|note| progress.event(Event::Note(note.clone())));
                let folder = model.place().to_string();
                Ok(Reply::Model { info: model.info.clone(), folder })
            }
            Op::Tokens(source) => text::load_tokens(&at_home(source), progress).map(Reply::Tokens),
            Op::Extract { model, tokens, args } => {
                let model = self.open(&model, progress)?;
                memory::reset_peak();
                engine::extract(&model, &tokens, &args, progress).map(Box::new).map(Reply::Activations)
            }
            Op::Estimate { model, args } => {
                // Headers tell all that is asked: whatever the model's access, nothing is downloaded.
                let files = hub::open(&model.id, model.revision.as_deref(), Access::Stream, progress)?;
                engine::estimate(files.source, &model, &args).map(Reply::Estimate)
            }
            Op::Miniature { folder, name } => miniature::make(Path::new(&folder), &name).map(Reply::Miniature),
        }
    }

    fn loaded(&self) -> Result<Vec<LoadArgs>> {
        let models = self.models.lock().expect("no panic under this lock");
        Ok(models.iter().map(|(args, _)| args.clone()).collect())
    }
}

/// The files of a source as this machine's user names them: `~` is the home folder here.
fn at_home(mut source: TokenSource) -> TokenSource {
    match &mut source {
        TokenSource::IdsJson { path } | TokenSource::IdsSafetensors { path, .. } => {
            *path = home::expanded(&*path).display().to_string();
        }
        TokenSource::Text(text) if text.dataset.is_none() => {
            text.path = home::expanded(&text.path).display().to_string();
        }
        TokenSource::Text(_) | TokenSource::Ids { .. } => (),
    }
    source
}

impl Op {
    /// The file, relative to the project, from which the work goes on when it is cut off.
    pub fn checkpoint(&self) -> Option<&str> {
        match self {
            Op::Extract { args, .. } => args.checkpoint.as_ref().map(|checkpoint| checkpoint.path.as_str()),
            _ => None,
        }
    }
}

impl Local {
    fn open(&self, args: &LoadArgs, progress: &dyn Progress) -> Result<Arc<OpenModel>> {
        let models = || self.models.lock().expect("no panic under this lock");
        if let Some((_, model)) = models().iter().find(|(known, _)| known == args) {
            return Ok(model.clone());
        }
        let loading = |e: Error| e.context(format!("loading model \"{}\"", plain(&args.id, 200)));
        // First of all: nothing is fetched for a device that is not there.
        weights::check_device(&args.device).map_err(loading)?;
        let access = if args.stream { Access::Stream } else { Access::Download };
        // Its headers say in time what cannot be read.
        let check = |source| weights::check_headers(source).map_err(loading);
        let files = hub::open_checked(&args.id, args.revision.as_deref(), access, progress, &check)?;
        let model = weights::open(files, args).map_err(loading)?;
        let model = Arc::new(model);
        // Another thread may have been quicker: then its model is the one.
        let mut models = models();
        if let Some((_, first)) = models.iter().find(|(known, _)| known == args) {
            return Ok(first.clone());
        }
        models.push((args.clone(), model.clone()));
        Ok(model)
    }
}
