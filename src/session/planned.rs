//! A session for dry runs: it reads only configs and headers, records requests, and answers with
//! values of the right shape without measurements. `local` carries the same requests out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::failure::Failure;
use super::request::{DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Serve};
use super::{Local, Session};
use crate::engine::{self, Laddered};
use crate::error::{Error, Kind, Result};
use crate::home;
use crate::hub::{self, Access, Opened};
use crate::plain::plain;
use crate::progress::{Event, Progress};
use crate::record::{
    Activations, BASELINE, Estimate, EstimateArgs, ExtractArgs, Fold, Lane, LaneOutcome, LoadArgs, Measurements,
    Miniature, NormFold, SiteLadders, TokenSource, Tokens, TokensInfo,
};
use crate::stats;
use crate::weights::{self, Description};

/// The largest record as a number of values: one for each norm, sequence and feature.
const MAX_VALUES: f64 = 2.0e9;

/// One pass through a model in a plan.
#[derive(Clone, Debug)]
pub struct Step {
    pub model: LoadArgs,
    pub num_sequences: usize,
    pub sequence_length: usize,
    /// Number of norm outputs in the record, over all layers.
    pub num_norms: usize,
    pub estimate: Estimate,
    /// True if the weights must be downloaded first.
    pub download: bool,
    /// `activations.safetensors`, if it would be written.
    pub file: Option<PathBuf>,
}

pub struct Planned {
    local: Local,
    /// True for a plan for another machine, whose devices are not known.
    elsewhere: bool,
    /// The folder of miniature models during the plan, whose headers can be read.
    scratch: tempfile::TempDir,
    steps: Mutex<Vec<Step>>,
    /// Problems that do not end the plan.
    wrong: Mutex<BTreeSet<String>>,
}

impl Planned {
    /// For this machine.
    pub fn new() -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(|e| Error::io("making a temporary folder", &e))?;
        Ok(Self {
            local: Local::default(),
            elsewhere: false,
            scratch,
            steps: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    /// For another machine.
    pub fn elsewhere() -> Result<Self> {
        Ok(Self { elsewhere: true, ..Self::new()? })
    }

    /// The requests since the last call.
    pub fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut *self.steps.lock().expect("no panic under this lock"))
    }

    /// Problems that do not end the plan.
    pub fn wrong(&self) -> BTreeSet<String> {
        self.wrong.lock().expect("no panic under this lock").clone()
    }

    /// True if a file, by its canonical path, was made for the plan, such as the text of a
    /// miniature model.
    pub fn made(&self, path: &Path) -> bool {
        self.scratch.path().canonicalize().is_ok_and(|scratch| path.starts_with(scratch))
    }

    /// The folder of a miniature model, as scripts would name it.
    pub fn shown(&self, id: &str) -> String {
        match Path::new(id).strip_prefix(self.scratch.path()) {
            Ok(name) => format!("miniature {}", name.display()),
            Err(_) => id.to_string(),
        }
    }

    fn estimate(&self, model: &LoadArgs, args: &EstimateArgs, progress: &dyn Progress) -> Result<Estimate> {
        engine::estimate(headers(model, progress)?.source, model, args)
    }
}

impl Serve<Extract> for Planned {
    fn serve(&self, Extract { model, tokens, args }: Extract, progress: &dyn Progress) -> Result<Activations> {
        let (num_sequences, sequence_length) = (tokens.info.num_sequences, tokens.info.sequence_length);
        let estimate = self.estimate(&model, &EstimateArgs::of(&args, &tokens.info), progress)?;
        let described = describe(headers(&model, progress)?, &model, self.elsewhere, progress)?;
        let num_norms = described.norms.len();
        let values = num_norms as f64 * num_sequences as f64 * described.info.hidden_size as f64;
        if values > MAX_VALUES {
            return Err(Error::of(Failure::RecordTooLarge { num_sequences, values }));
        }
        let file = args.out.as_ref().map(|folder| Path::new(folder).join(crate::results::FULL_ACTIVATIONS));
        let download = !home::expanded(&model.id).exists();
        let acts = shape(described, tokens.info, &args)?;
        self.steps.lock().expect("no panic under this lock").push(Step {
            model,
            num_sequences,
            sequence_length,
            num_norms,
            estimate,
            download,
            file,
        });
        Ok(acts)
    }
}

impl Serve<Load> for Planned {
    fn serve(&self, Load(args): Load, progress: &dyn Progress) -> Result<Loaded> {
        if !self.elsewhere {
            weights::check_device(&args.device)?;
        }
        let files = headers(&args, progress)?;
        let folder = files.source.place();
        let loading = |error: Error| error.context(format!("loading model \"{}\"", plain(&args.id, 200)));
        match files.source.files() {
            // Opening it would have this error. For another machine the config suffices.
            Err(error) if files.revision.is_none() && !self.elsewhere => return Err(loading(error)),
            Err(error) if error.kind == Kind::NotFound => {
                // A folder may have its weights on the machine, but a repository is the same
                // everywhere.
                if files.revision.is_some() {
                    self.wrong.lock().expect("no panic under this lock").insert(loading(error).message);
                }
                progress
                    .event(Event::Note(format!("{folder}: no weights are there; sizes are those of a usual release")));
            }
            _ => (),
        }
        Ok(Loaded { info: describe(files, &args, self.elsewhere, progress)?.info, folder })
    }
}

impl Serve<LoadTokens> for Planned {
    fn serve(&self, LoadTokens(source): LoadTokens, progress: &dyn Progress) -> Result<Tokens> {
        let TokenSource::Text(text) = source else {
            // Ids are given, or are read from a file.
            return self.local.serve(LoadTokens(source), progress);
        };
        // A local file that is not a text file, or lacks the column, is reported before anything
        // runs.
        if text.dataset.is_none() && Path::new(&text.path).exists() {
            let documents = hub::Documents::open(&text)?;
            if text.shuffle.is_none() {
                documents.first(1)?;
            }
        }
        let (num_sequences, sequence_length) = (text.num_sequences, text.sequence_length);
        let info = TokensInfo {
            source: text.path,
            revision: text.dataset.and_then(|dataset| dataset.revision),
            num_sequences,
            sequence_length,
            sha256: String::new(),
            parts: Vec::new(),
        };
        Ok(Tokens { ids: vec![vec![0; sequence_length]; num_sequences], info })
    }
}

impl Serve<EstimateWork> for Planned {
    fn serve(&self, EstimateWork { model, args }: EstimateWork, progress: &dyn Progress) -> Result<Estimate> {
        self.estimate(&model, &args, progress)
    }
}

impl Serve<MakeMiniature> for Planned {
    /// The miniature is made in a temporary folder, unless it exists.
    fn serve(&self, MakeMiniature { folder, name }: MakeMiniature, progress: &dyn Progress) -> Result<Miniature> {
        let known = Path::new(&folder).join(&name).join("miniature.json").exists();
        let folder = if known { folder } else { self.scratch.path().display().to_string() };
        self.local.serve(MakeMiniature { folder, name }, progress)
    }
}

/// Bytes of a text per token, where no tokenizer is at hand in a plan.
const BYTES_PER_TOKEN: usize = 4;

impl Serve<EncodeTexts> for Planned {
    /// The ids, if the tokenizer is here. Otherwise about as many zeros.
    fn serve(&self, request: EncodeTexts, progress: &dyn Progress) -> Result<Vec<Vec<u32>>> {
        let zeros = |text: &String| vec![0; text.len().div_ceil(BYTES_PER_TOKEN)];
        let instead = request.texts.iter().map(zeros).collect();
        if_there(&request.tokenizer.clone(), self.local.serve(request, progress), instead, progress)
    }
}

impl Serve<DecodeIds> for Planned {
    /// The texts, if the tokenizer is here. Otherwise empty ones.
    fn serve(&self, request: DecodeIds, progress: &dyn Progress) -> Result<Vec<String>> {
        let instead = vec![String::new(); request.ids.len()];
        if_there(&request.tokenizer.clone(), self.local.serve(request, progress), instead, progress)
    }
}

/// What a tokenizer has answered, or `instead` if it is not on this machine.
fn if_there<T>(tokenizer: &str, answer: Result<T>, instead: T, progress: &dyn Progress) -> Result<T> {
    match answer {
        Err(error) if error.kind == Kind::NotFound => {
            progress
                .event(Event::Note(format!("{tokenizer}: no tokenizer is here; the number of its tokens is a guess")));
            Ok(instead)
        }
        answer => answer,
    }
}

impl Session for Planned {}

/// A model's files, of which only configs and headers are read.
fn headers(model: &LoadArgs, progress: &dyn Progress) -> Result<Opened> {
    hub::open(&model.id, model.revision.as_deref(), Access::Stream, progress)
}

/// Describes a model from its headers, and reports what the user should know of it.
fn describe(files: Opened, args: &LoadArgs, elsewhere: bool, progress: &dyn Progress) -> Result<Description> {
    let mut described = weights::describe(files, args, elsewhere)?;
    described.notes.drain(..).for_each(|note| progress.event(Event::Note(note)));
    Ok(described)
}

/// A record in which no value reaches the ladder.
fn shape(described: Description, tokens: TokensInfo, args: &ExtractArgs) -> Result<Activations> {
    let ladder = stats::ladder(&args.thresholds)?;
    let Description { info, norms, spec, .. } = described;
    let hidden = info.hidden_size;
    let fold = |units: usize, width: usize| Fold {
        norms: vec![
            vec![
                NormFold { max: vec![0.0; width], min: vec![0.0; width], ..NormFold::default() };
                tokens.num_sequences
            ];
            units
        ],
        any_norm: vec![Default::default(); tokens.num_sequences],
    };
    let of_site = |Laddered { site, width, layers }: Laddered| {
        let (all, without_first) = (fold(layers.len(), width), fold(layers.len(), width));
        SiteLadders { site, width, layers, all, without_first, non_finite: Vec::new() }
    };
    engine::check_lanes(&spec, (tokens.num_sequences, tokens.sequence_length), args)?;
    let sites = engine::ladders(&spec, &args.measure)?.into_iter().map(of_site).collect();
    Ok(Activations {
        num_layers: info.num_layers,
        hidden_size: hidden,
        num_sequences: tokens.num_sequences,
        sequence_length: tokens.sequence_length,
        all: fold(norms.len(), hidden),
        without_first: fold(norms.len(), hidden),
        model: info,
        tokens: tokens.clone(),
        norms,
        ladder,
        non_finite: Vec::new(),
        expert_coverage: Vec::new(),
        mean_nll: args.logits.then(|| vec![0.0; tokens.num_sequences]),
        full_activations: None,
        measurements: Measurements::default(),
        sites,
        measures: Default::default(),
        lanes: lanes(args, &tokens),
    })
}

/// Lanes that change nothing.
fn lanes(args: &ExtractArgs, tokens: &TokensInfo) -> Vec<LaneOutcome> {
    let asked = &args.lanes.lanes;
    let baseline = (!asked.is_empty()).then(|| Lane { name: BASELINE.to_string(), changes: Vec::new() });
    let zeros = || vec![0.0; tokens.num_sequences];
    let of = |Lane { name, changes }: Lane| LaneOutcome {
        name,
        changes,
        mean_nll: zeros(),
        kl: zeros(),
        top1_agreement: zeros(),
        top1_probability: zeros(),
        norm_hits: Vec::new(),
        attention_top1: Vec::new(),
    };
    baseline.into_iter().chain(asked.iter().cloned()).map(of).collect()
}
