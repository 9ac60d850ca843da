//! This machine: requests are carried out in this process.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::Session;
use super::request::{DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Serve};
use crate::error::{Error, Result};
use crate::home;
use crate::hub::{self, Access};
use crate::memory;
use crate::plain::plain;
use crate::progress::{Event, Progress};
use crate::record::{Activations, Estimate, LoadArgs, Miniature, TokenSource, Tokens};
use crate::text::Tokenizers;
use crate::weights::{self, OpenModel};
use crate::{engine, miniature, text};

/// Keeps opened models (headers, not weights) by their arguments, in the order of opening, and the
/// tokenizers that were used last.
#[derive(Default)]
pub struct Local {
    models: Mutex<Vec<(LoadArgs, Arc<OpenModel>)>>,
    tokenizers: Tokenizers,
}

impl Serve<Load> for Local {
    fn serve(&self, Load(args): Load, progress: &dyn Progress) -> Result<Loaded> {
        let model = self.open(&args, progress)?;
        model.notes.iter().for_each(|note| progress.event(Event::Note(note.clone())));
        Ok(Loaded { info: model.info.clone(), folder: model.place().to_string() })
    }
}

impl Serve<LoadTokens> for Local {
    fn serve(&self, LoadTokens(source): LoadTokens, progress: &dyn Progress) -> Result<Tokens> {
        text::load_tokens(&at_home(source), progress)
    }
}

impl Serve<Extract> for Local {
    fn serve(&self, Extract { model, tokens, args }: Extract, progress: &dyn Progress) -> Result<Activations> {
        let model = self.open(&model, progress)?;
        memory::reset_peak();
        engine::extract(&model, &tokens, &args, progress)
    }
}

impl Serve<EstimateWork> for Local {
    fn serve(&self, EstimateWork { model, args }: EstimateWork, progress: &dyn Progress) -> Result<Estimate> {
        // Headers suffice, so that nothing is downloaded for any access.
        let files = hub::open(&model.id, model.revision.as_deref(), Access::Stream, progress)?;
        engine::estimate(files.source, &model, &args)
    }
}

impl Serve<MakeMiniature> for Local {
    fn serve(&self, MakeMiniature { folder, name }: MakeMiniature, _: &dyn Progress) -> Result<Miniature> {
        miniature::make(Path::new(&folder), &name)
    }
}

impl Serve<EncodeTexts> for Local {
    fn serve(&self, request: EncodeTexts, progress: &dyn Progress) -> Result<Vec<Vec<u32>>> {
        let EncodeTexts { tokenizer, texts, add_special_tokens } = request;
        self.tokenizers.encode(&tokenizer, &texts, add_special_tokens, progress)
    }
}

impl Serve<DecodeIds> for Local {
    fn serve(
        &self,
        DecodeIds { tokenizer, ids, skip_special_tokens }: DecodeIds,
        _: &dyn Progress,
    ) -> Result<Vec<String>> {
        self.tokenizers.decode(&tokenizer, &ids, skip_special_tokens)
    }
}

impl Session for Local {
    fn loaded(&self) -> Result<Vec<LoadArgs>> {
        let models = self.models.lock().expect("no panic under this lock");
        Ok(models.iter().map(|(args, _)| args.clone()).collect())
    }
}

/// The files of a source on this machine, where `~` is the home folder.
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

impl Local {
    fn open(&self, args: &LoadArgs, progress: &dyn Progress) -> Result<Arc<OpenModel>> {
        let models = || self.models.lock().expect("no panic under this lock");
        if let Some((_, model)) = models().iter().find(|(known, _)| known == args) {
            return Ok(model.clone());
        }
        let loading = |e: Error| e.context(format!("loading model \"{}\"", plain(&args.id, 200)));
        // Nothing is fetched for a missing device.
        weights::check_device(&args.device).map_err(loading)?;
        let access = if args.stream { Access::Stream } else { Access::Download };
        // The headers show in time what cannot be read.
        let check = |source| weights::check_headers(source).map_err(loading);
        let files = hub::open_checked(&args.id, args.revision.as_deref(), access, progress, &check)?;
        let model = weights::open(files, args).map_err(loading)?;
        let model = Arc::new(model);
        // Another thread may have been quicker. Then its model is used.
        let mut models = models();
        if let Some((_, first)) = models.iter().find(|(known, _)| known == args) {
            return Ok(first.clone());
        }
        models.push((args.clone(), model.clone()));
        Ok(model)
    }
}
