//! A pass that is complete but not saved yet. Its record replaces the checkpoint. If something
//! fails afterwards, such as a full disk or a misspelt option, the next run of the same work uses
//! the record and reads no weights.
//!
//! A caller that has saved the record, or has ended without needing it, calls `remove`.

use std::fs::Metadata;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checkpoint_names::{checkpoints, fingerprint, fingerprinted};
use super::resume::{FINISHED, Owner, Resume, differences, identity, owner_of};
use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::progress::{Event, Progress};
use crate::record::{Activations, ExtractArgs, Keep, Measurements, Tokens, TokensInfo};
use crate::results::{FULL_ACTIVATIONS, decode_stats, encode_stats, sealed};
use crate::stats;
use crate::weights::OpenModel;

/// The largest record in bytes.
const MAX_RECORD: u64 = 4 << 30;

/// The parts of a result that are not in its record.
#[derive(Serialize, Deserialize)]
struct Finished {
    measurements: Measurements,
    /// Identity of the `activations.safetensors` that belongs to it, if there is one.
    activations: Option<Stamp>,
}

/// Distinguishes versions of a file.
#[derive(PartialEq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    inode: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

impl Stamp {
    /// The stamp of the file in the folder that the activations name.
    fn of(acts: &Activations) -> Option<Self> {
        let folder = acts.full_activations.as_ref()?;
        let file: Metadata = std::fs::metadata(Path::new(folder).join(FULL_ACTIVATIONS)).ok()?;
        Some(Self { bytes: file.len(), inode: file.ino(), modified: (file.mtime(), file.mtime_nsec()) })
    }
}

impl Resume {
    /// The record of an earlier run of the same work, if there is one. A record that cannot be used
    /// is reported.
    pub(super) fn finished(
        &mut self,
        model: &OpenModel,
        tokens: &Tokens,
        args: &ExtractArgs,
        progress: &dyn Progress,
    ) -> Option<Activations> {
        let (header, reader) = self.existing.take_if(|(header, _)| !header[FINISHED].is_null())?;
        let read = read(&header, reader).and_then(|(finished, acts)| {
            let acts = of_this_work(acts, &finished.measurements, (model, tokens, args))?;
            Ok((finished, acts))
        });
        let why = match read {
            Ok((finished, acts)) if finished.activations == Stamp::of(&acts) => {
                let (id, name) = (&model.info.id, &self.name);
                progress.event(Event::Note(format!(
                    "the finished pass of {id} is taken up from {name}: no weights are read"
                )));
                // A client that sent this checkpoint fetches it again, and has it if this run
                // fails.
                progress.event(Event::Checkpoint { path: name.clone(), layer: acts.num_layers as u64 });
                return Some(Activations { measurements: finished.measurements, ..acts });
            }
            Ok(_) => "belongs to activations that are gone".to_string(),
            Err(error) => format!("is not used ({})", error.message),
        };
        progress.event(Event::Warning(format!("checkpoint {} {why}: starting at the first layer", self.name)));
        None
    }

    /// Replaces the checkpoint by the record of the complete pass. If it cannot be written, the
    /// checkpoint stays.
    pub(super) fn finish(&mut self, acts: &Activations, progress: &dyn Progress) {
        let finished = Finished { measurements: acts.measurements.clone(), activations: Stamp::of(acts) };
        let mut header =
            self.header(acts.num_layers, acts.measurements.bytes_read_before + acts.measurements.bytes_read);
        header[FINISHED] = serde_json::to_value(finished).expect("JSON");
        let written = self.avoid_files_of_others().and_then(|()| write(self.path(), &header, acts));
        self.report(acts.num_layers, written, progress);
    }
}

fn write(path: &Path, header: &Value, acts: &Activations) -> Result<()> {
    let record = encode_stats(acts)?;
    let mut writer = sealed::Writer::create(path, header)?;
    writer.write_all(&record).map_err(|e| Error::io("writing the checkpoint", &e).or_hint("is the disk full?"))?;
    writer.finish()
}

fn read(header: &Value, mut reader: sealed::Reader) -> Result<(Finished, Activations)> {
    let finished: Finished = serde_json::from_value(header[FINISHED].clone())
        .map_err(|e| Error::new(Kind::Corrupt, format!("its measurements: {e}")))?;
    let mut record = Vec::new();
    (&mut reader).take(MAX_RECORD).read_to_end(&mut record).map_err(|e| Error::corrupt(format!("reading it: {e}")))?;
    reader.finish()?;
    Ok((finished, decode_stats(&record, "reading it")?))
}

/// Checks that the record has the shape of this work. It may come from another machine, which is
/// trusted with numbers only.
fn of_this_work(
    acts: Activations,
    measurements: &Measurements,
    (model, tokens, args): (&OpenModel, &Tokens, &ExtractArgs),
) -> Result<Activations> {
    let shape = (acts.num_layers, acts.hidden_size, acts.num_sequences, acts.sequence_length);
    let info = &tokens.info;
    let expected = (model.spec.layers.len(), model.spec.hidden_size, info.num_sequences, info.sequence_length);
    let measured = measurements.measured().iter().all(|(_, value)| value.is_finite() && *value >= 0.0);
    let lanes = args.lanes.answered_by(&acts.lanes);
    let silent = measurements.machine.is_empty() && measurements.completion_time.is_empty();
    if shape != expected || acts.norms != model.spec.norm_sites() || !measured || !silent || !lanes {
        return Err(Error::corrupt("its record is not of this work"));
    }
    stats::check_whole(&acts)?;
    stats::check_asked(&acts, &args.measure)?;
    let full_activations = args.out.clone().filter(|_| args.keep == Keep::Full);
    Ok(Activations { model: model.info.clone(), tokens: info.clone(), full_activations, ..acts })
}

/// Moves the received checkpoint `arrived` to `requested`, or to a name of its own if `requested`
/// belongs to other work.
///
/// # Errors
/// `arrived` is not a checkpoint, or its place is taken by another kind of file. The received file
/// is removed then.
pub fn place(arrived: &Path, requested: &str) -> Result<()> {
    let placed = || {
        let header = sealed::header_of(arrived).ok_or_else(|| Error::corrupt("what came is no checkpoint"))?;
        let Value::Object(identity) = &header["identity"] else {
            return Err(Error::corrupt("what came is of no work"));
        };
        let own = fingerprinted(requested, &fingerprint(identity));
        let place = match (owner_of(requested, identity)?, owner_of(&own, identity)?) {
            (Owner::Others(..), _) | (Owner::Missing, Owner::Ours(..)) => own.as_str(),
            _ => requested,
        };
        disk::rename(arrived, Path::new(place)).map_err(|e| Error::io(format!("writing {place}"), &e))
    };
    placed().inspect_err(|_| drop(std::fs::remove_file(arrived)))
}

/// Whether a checkpoint with this header can belong to this work, as far as it is known without the
/// model.
pub fn may_be_of(header: &Value, tokens: &TokensInfo, args: &ExtractArgs) -> bool {
    let of = &header["identity"];
    of["tokens"] == serde_json::json!([tokens.sha256, tokens.num_sequences, tokens.sequence_length])
        && of["keep"] == serde_json::json!(args.keep)
        && of["logits"] == args.logits
        && of["memory_budget"] == args.memory_budget
}

/// Removes the checkpoints under `requested` of the work that produced `acts`. Files of other work
/// stay.
pub fn remove(requested: &str, acts: &Activations, args: &ExtractArgs) {
    let identity = identity(&acts.model, &acts.tokens, args, &acts.ladder, "");
    let ours = |header: &Value| {
        let stored = &header["identity"];
        let files = stored["model"]["files"] == identity["model"]["files"];
        // Samples of the weights are not known any more.
        files && differences(stored, &identity).iter().all(|key| *key == "model")
    };
    for name in checkpoints(requested) {
        let path = PathBuf::from(name);
        if sealed::header_of(&path).is_some_and(|header| ours(&header)) {
            sealed::remove(&path);
        }
    }
}
