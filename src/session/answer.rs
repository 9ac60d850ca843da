//! Checks of replies: their size, and whether they answer the request. A machine is trusted with
//! the numbers that it computes and with nothing else: the client knows the kind and the shape of
//! the reply.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::failure::Failure;
use super::reply_size::{BESIDE, NUMBER, measured_bytes, product, record_bytes};
use super::request::{DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Request};
use crate::engine::{is_checkpoint_of, may_be_of};
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::record::{Activations, Estimate, ExtractArgs, Keep, LoadArgs, Miniature, ModelInfo, TokenSource, Tokens};
use crate::stats;

/// Largest size in bytes of ids that a machine reads from a file of its own.
const FILE_OF_IDS: u64 = 1 << 30;
/// The largest number of layers of any model.
const MAX_LAYERS: usize = 1 << 12;
const MAX_HIDDEN: usize = 1 << 18;
const MAX_VOCABULARY: usize = 1 << 28;
/// Ways in which the weights of a model are stored; mixed releases have three or four.
const MAX_FORMATS: usize = 1 << 10;
/// The largest number of characters in a name or path from a machine.
const MAX_NAME: usize = 4096;
/// The largest number of characters in a message, a hint or a warning.
const MAX_MESSAGE: usize = 16 << 10;
/// Limits of the events of a call: at once (a call may have run for long when it is joined), and
/// per second.
const EVENTS: u64 = 1_000_000;
const EVENTS_PER_SECOND: u64 = 20;
/// Bytes of text in all events of a call.
const EVENT_TEXT: usize = 16 << 20;
/// The largest number of tokens for a byte of text, beside the special tokens of a sequence. A
/// tokenizer of bytes has one, and a normalizer may put a few characters in the place of one.
const MAX_TOKENS_PER_BYTE: usize = 32;
const MAX_SPECIAL_TOKENS: usize = 1 << 10;
/// The largest number of bytes of a token.
const MAX_TOKEN_BYTES: usize = 1 << 10;
/// Counts are exact in a float up to this number, and sums of several of them do not overflow.
const MAX_COUNT: u64 = 1 << 53;

/// The rungs that a record must have. Empty if the thresholds are invalid, so that no pass begins.
fn ladder(args: &ExtractArgs) -> Vec<f32> {
    stats::ladder(&args.thresholds).unwrap_or_default()
}

/// A request whose reply can be checked.
pub(super) trait Verify: Request {
    /// The largest reply in bytes; more than can be sent if it is not known. `known` is the model
    /// of an extraction, as its machine has described it.
    fn largest_reply(&self, known: Option<&ModelInfo>) -> u64;

    /// Checks that `reply` answers this request.
    ///
    /// # Errors
    /// The difference, in words.
    fn verify(&self, reply: &Self::Reply, known: Option<&ModelInfo>) -> Checked;

    /// Checks the request itself: the client of a worker is trusted no more than a worker.
    ///
    /// # Errors
    /// If it cannot be carried out.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The checkpoint file of the work, relative to the project. Events may name no other.
    fn checkpoint_file(&self) -> Option<&str> {
        None
    }
}

impl Verify for Load {
    fn largest_reply(&self, _: Option<&ModelInfo>) -> u64 {
        BESIDE
    }

    fn verify(&self, reply: &Loaded, _: Option<&ModelInfo>) -> Checked {
        check_model(&self.0, &reply.info, &reply.folder)
    }
}

impl Verify for LoadTokens {
    fn largest_reply(&self, _: Option<&ModelInfo>) -> u64 {
        let ids =
            |sequences: usize, length: usize| product(&[sequences, length.saturating_add(1)]).saturating_mul(NUMBER);
        let bytes = match &self.0 {
            TokenSource::Text(text) => ids(text.num_sequences, text.sequence_length),
            TokenSource::Ids { ids: given } => given.iter().map(|row| ids(1, row.len())).sum(),
            TokenSource::IdsJson { .. } | TokenSource::IdsSafetensors { .. } => FILE_OF_IDS,
        };
        bytes.saturating_add(BESIDE)
    }

    fn verify(&self, reply: &Tokens, _: Option<&ModelInfo>) -> Checked {
        check_tokens(&self.0, reply)
    }
}

impl Verify for Extract {
    fn largest_reply(&self, known: Option<&ModelInfo>) -> u64 {
        known.map_or(u64::MAX, |info| self.record_bytes(info).saturating_add(BESIDE))
    }

    fn verify(&self, reply: &Activations, known: Option<&ModelInfo>) -> Checked {
        check_activations(self, reply, known)
    }

    fn check(&self) -> Result<()> {
        check_sequences(&self.tokens).map_err(|what| Error::of(Failure::WrongTokens(what)))
    }

    fn checkpoint_file(&self) -> Option<&str> {
        self.checkpoint()
    }
}

impl Verify for EstimateWork {
    fn largest_reply(&self, _: Option<&ModelInfo>) -> u64 {
        BESIDE
    }

    fn verify(&self, reply: &Estimate, _: Option<&ModelInfo>) -> Checked {
        name("the kind of the model", &reply.model_type)?;
        name("the model", &reply.id)?;
        measured("operations", reply.flops)
    }
}

impl Verify for MakeMiniature {
    fn largest_reply(&self, _: Option<&ModelInfo>) -> u64 {
        BESIDE
    }

    fn verify(&self, reply: &Miniature, _: Option<&ModelInfo>) -> Checked {
        check_miniature(&self.folder, &self.name, reply)
    }
}

/// The largest number of tokens of a text.
fn most_tokens(text: &str) -> usize {
    text.len().saturating_mul(MAX_TOKENS_PER_BYTE).saturating_add(MAX_SPECIAL_TOKENS)
}

/// The largest number of bytes of the text of so many ids.
fn most_text(ids: usize) -> usize {
    ids.saturating_mul(MAX_TOKEN_BYTES)
}

impl Verify for EncodeTexts {
    fn largest_reply(&self, _: Option<&ModelInfo>) -> u64 {
        let tokens = self.texts.iter().map(|text| most_tokens(text) as u64);
        tokens.fold(0, u64::saturating_add).saturating_mul(NUMBER).saturating_add(BESIDE)
    }

    fn verify(&self, reply: &Vec<Vec<u32>>, _: Option<&ModelInfo>) -> Checked {
        same("texts", &reply.len(), &self.texts.len())?;
        let mut texts = self.texts.iter().zip(reply);
        texts.try_for_each(|(text, ids)| at_most("tokens of a text", ids.len(), most_tokens(text)))
    }
}

impl Verify for DecodeIds {
    fn largest_reply(&self, _: Option<&ModelInfo>) -> u64 {
        let bytes = self.ids.iter().map(|ids| most_text(ids.len()) as u64 + NUMBER);
        bytes.fold(0, u64::saturating_add).saturating_add(BESIDE)
    }

    fn verify(&self, reply: &Vec<String>, _: Option<&ModelInfo>) -> Checked {
        same("lists of ids", &reply.len(), &self.ids.len())?;
        let mut texts = self.ids.iter().zip(reply);
        texts.try_for_each(|(ids, text)| at_most("bytes of a text", text.len(), most_text(ids.len())))
    }
}

impl Extract {
    fn record_bytes(&self, info: &ModelInfo) -> u64 {
        let sequences = self.tokens.info.num_sequences;
        let of_layer = product(&[sequences, 2 * NUMBER as usize]).saturating_add(200).saturating_mul(3);
        let of_lane = (info.num_layers as u64 + 4).saturating_mul(of_layer);
        let changed = (info.hidden_size as u64).saturating_mul(NUMBER).saturating_add(of_lane);
        let lanes = (self.args.lanes.lanes.len() as u64 + 1).saturating_mul(changed);
        let lanes = if self.args.lanes.is_default() { 0 } else { lanes };
        let (tokens, rungs) = (&self.tokens.info, ladder(&self.args).len());
        let measured = measured_bytes(info, tokens, &self.args.measure, rungs);
        record_bytes(info, tokens, rungs).saturating_add(measured).saturating_add(lanes)
    }

    /// The largest checkpoint of this work in bytes; None if it has none.
    pub(super) fn checkpoint_bytes(&self, info: &ModelInfo) -> Option<u64> {
        self.checkpoint()?;
        let tokens = &self.tokens.info;
        let hidden = product(&[tokens.num_sequences, tokens.sequence_length, info.hidden_size]).saturating_mul(4);
        let streams = (1 + self.args.lanes.lanes.len() as u64).saturating_mul(hidden);
        // Folds during a pass are not as sparse as those of a record.
        Some(self.record_bytes(info).saturating_mul(2).saturating_add(streams))
    }

    /// Whether a checkpoint with this header can belong to this work, as far as it is known without
    /// the model.
    pub(super) fn may_continue(&self, header: &Value) -> bool {
        may_be_of(header, &self.tokens.info, &self.args)
    }
}

/// The difference between an answer and what was asked for, in words.
pub(super) type Checked = std::result::Result<(), String>;

fn holds(condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(what()) }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Checked {
    holds(found == expected, || format!("{what}: {found:?} instead of {expected:?}"))
}

fn at_most(what: &str, found: usize, most: usize) -> Checked {
    holds(found <= most, || format!("{what}: {found}, more than {most}"))
}

fn name(what: &str, text: &str) -> Checked {
    at_most(&format!("characters of {what}"), text.len(), MAX_NAME)
}

/// Checks a measurement or count: it is finite and not negative.
fn measured(what: &str, number: f64) -> Checked {
    holds(number.is_finite() && number >= 0.0, || format!("{what}: {number}"))
}

fn check_model(args: &LoadArgs, info: &ModelInfo, folder: &str) -> Checked {
    same("the model", &info.id, &args.id)?;
    holds(info.num_layers > 0 && info.hidden_size > 0, || "a model of nothing".to_string())?;
    at_most("layers", info.num_layers, MAX_LAYERS)?;
    at_most("features", info.hidden_size, MAX_HIDDEN)?;
    at_most("entries of the vocabulary", info.vocab_size, MAX_VOCABULARY)?;
    at_most("experts", info.num_experts, MAX_HIDDEN)?;
    let files = info.files.iter().flat_map(|file| [&file.name, &file.kind, &file.digest]);
    at_most("formats of weights", info.weights_stored_as.len(), MAX_FORMATS)?;
    let formats = info.weights_stored_as.iter().map(|stored| &stored.format);
    let mut names = files.chain([&info.model_type, &info.device]).chain(&info.revision).chain(formats);
    name("its folder", folder).and_then(|()| names.try_for_each(|text| name("a name", text)))
}

/// Checks that tokens match their description: sequences of one length that are not empty.
fn check_sequences(tokens: &Tokens) -> Checked {
    let Tokens { ids, info } = tokens;
    same("sequences", &ids.len(), &info.num_sequences)?;
    holds(info.num_sequences > 0 && info.sequence_length > 0, || "no tokens".to_string())?;
    holds(ids.iter().all(|row| row.len() == info.sequence_length), || "sequences of several lengths".to_string())?;
    same("the hash of the ids", &info.sha256, &crate::text::hash_of_ids(ids))
}

fn check_tokens(source: &TokenSource, tokens: &Tokens) -> Checked {
    check_sequences(tokens)?;
    let Tokens { ids, info } = tokens;
    match source {
        TokenSource::Text(text) => {
            same("sequences", &ids.len(), &text.num_sequences)?;
            // Windows that are decoded and tokenised again may be shorter.
            at_most("tokens of a sequence", info.sequence_length, text.sequence_length)
        }
        TokenSource::Ids { ids: given } => holds(ids == given, || "other ids".to_string()),
        TokenSource::IdsJson { .. } | TokenSource::IdsSafetensors { .. } => Ok(()),
    }
}

fn check_miniature(folder: &str, model: &str, made: &Miniature) -> Checked {
    let path = Path::new(folder).join(model);
    same("its folder", &made.path, &path.display().to_string())?;
    same("its text", &made.text, &path.join("text.txt").display().to_string())?;
    at_most("its outliers", made.expected_dims.len(), MAX_HIDDEN)?;
    name("its class", &made.expected_classification)
}

fn check_activations(asked: &Extract, acts: &Activations, known: Option<&ModelInfo>) -> Checked {
    let Extract { model, tokens, args } = asked;
    check_model(model, &acts.model, "")?;
    same("tokens", &acts.tokens, &tokens.info)?;
    let shape = (acts.num_layers, acts.hidden_size);
    same("layers and features", &shape, &(acts.model.num_layers, acts.model.hidden_size))?;
    if let Some(known) = known {
        same("layers and features", &shape, &(known.num_layers, known.hidden_size))?;
    }
    let (sequences, length) = (tokens.info.num_sequences, tokens.info.sequence_length);
    same("sequences and positions", &(acts.num_sequences, acts.sequence_length), &(sequences, length))?;
    same("the ladder", &acts.ladder, &ladder(args))?;
    stats::check_asked(acts, &args.measure).and_then(|()| stats::check_whole(acts)).map_err(|error| error.message)?;
    let losses = acts.mean_nll.as_ref().map_or(0, Vec::len);
    let as_asked = acts.mean_nll.is_none() || (args.logits && losses == sequences);
    holds(as_asked, || format!("{losses} losses"))?;
    holds(args.lanes.answered_by(&acts.lanes), || "other lanes than were asked for".to_string())?;
    let out = args.out.clone().filter(|_| args.keep == Keep::Full);
    same("the folder of all values", &acts.full_activations, &out)?;
    acts.measurements.measured().into_iter().try_for_each(|(what, number)| measured(what, number))?;
    name("its machine", &acts.measurements.machine)?;
    name("the time", &acts.measurements.completion_time)
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// An error from a machine. Kinds that only this side can determine are not accepted.
pub(super) fn told(error: Error) -> Error {
    let kind = match error.kind {
        Kind::OverBudget | Kind::NoFunds | Kind::NoCapacity => Kind::Service,
        kind => kind,
    };
    let (message, hint) = (cut(error.message, MAX_MESSAGE), error.hint.map(|hint| cut(hint, MAX_MESSAGE)));
    Error { kind, message, hint, cause: None }
}

/// The events of a call so far, over all its connections.
pub(super) struct Told {
    begin: Instant,
    events: u64,
    text: usize,
    checkpoint: Option<String>,
}

impl Told {
    /// Of a call whose checkpoint is the file `checkpoint`.
    pub(super) fn new(checkpoint: Option<&str>) -> Self {
        Self { begin: Instant::now(), events: 0, text: 0, checkpoint: checkpoint.map(str::to_string) }
    }

    /// Returns the event if this call can have it, or None.
    pub(super) fn admit(&mut self, event: Event) -> Result<Option<Event>> {
        self.events += 1;
        if self.events > EVENTS + EVENTS_PER_SECOND * self.begin.elapsed().as_secs() {
            return Err(Error::of(Failure::TooManyEvents(self.events)));
        }
        let count = |count: u64| count.min(MAX_COUNT);
        let checkpoint = self.checkpoint.clone();
        let mut text = |text: String, most: usize| {
            self.text += text.len();
            match self.text > EVENT_TEXT {
                true => Err(Error::of(Failure::TooMuchText(self.text))),
                false => Ok(cut(text, most)),
            }
        };
        Ok(Some(match event {
            Event::Begin { what, total } => Event::Begin { what: text(what, MAX_NAME)?, total: count(total) },
            Event::Step { done, bytes, tokens, seconds } => {
                let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
                Event::Step { done: count(done), bytes: count(bytes), tokens: count(tokens), seconds }
            }
            Event::End => Event::End,
            // The file is the requested one, or one of this work next to it, under any name on the
            // machine.
            Event::Checkpoint { path, layer } => {
                let path = text(path, MAX_NAME)?;
                let Some(asked) = checkpoint else { return Ok(None) };
                let path = if is_checkpoint_of(&asked, &path) { path } else { asked };
                Event::Checkpoint { path, layer: count(layer) }
            }
            Event::Resumed { path, layer } => {
                let path = text(path, MAX_NAME)?;
                let Some(asked) = checkpoint else { return Ok(None) };
                let path = if is_checkpoint_of(&asked, &path) { path } else { asked };
                Event::Resumed { path, layer: count(layer) }
            }
            Event::Warning(warning) => Event::Warning(text(warning, MAX_MESSAGE)?),
            Event::Note(note) => Event::Note(text(note, MAX_MESSAGE)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ComputeDtype, TokensInfo};

    fn extract(ids: Vec<Vec<u32>>, num_sequences: usize, sequence_length: usize) -> Extract {
        let sha256 = crate::text::hash_of_ids(&ids);
        let info = TokensInfo {
            source: "script".into(),
            revision: None,
            num_sequences,
            sequence_length,
            sha256,
            parts: vec![],
        };
        let (id, device) = ("m".to_string(), "cpu".to_string());
        let (revision, max_vram, stream, chunk_layers) = (None, None, false, 2);
        let model = LoadArgs { id, revision, dtype: ComputeDtype::F32, device, chunk_layers, stream, max_vram };
        Extract { model, tokens: Tokens { ids, info }, args: ExtractArgs::default() }
    }

    #[test]
    fn a_worker_refuses_tokens_that_do_not_fit_their_description() {
        let good = vec![vec![1, 2], vec![3, 4]];
        assert_eq!(extract(good.clone(), 2, 2).check(), Ok(()));
        for (ids, sequences, length) in [
            (good.clone(), 1, 2),
            (good.clone(), 1 << 63, 2),
            (good.clone(), 2, 1),
            (good.clone(), 2, usize::MAX),
            (vec![], 0, 0),
            (vec![vec![], vec![]], 2, 0),
            (vec![vec![1, 2], vec![3]], 2, 2),
        ] {
            let error = extract(ids.clone(), sequences, length).check().unwrap_err();
            assert_eq!(error.kind, Kind::BadArgument, "{ids:?} {sequences} {length}");
        }
        let mut other = extract(good, 2, 2);
        other.tokens.ids[1][1] = 5;
        assert!(other.check().unwrap_err().message.contains("hash"));
    }
}
