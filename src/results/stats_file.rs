//! `activations.stats`: the record of one extraction as a safetensors file, so that any language
//! can read it.
//!
//! Every tensor is a list of bytes, compressed as one Zstandard frame; what it holds once unpacked,
//! for N norms, S sequences and D features:
//! - `max`, `min`: signed extremes over all positions, f32 [N, S, D] little-endian, transposed by
//!   bytes: first the lowest byte of every value, then the next. `first.max`, `first.min`: those
//!   without position 0, where they differ: so many u32 cell numbers (indices into [N, S, D]), then
//!   as many f32, little-endian.
//! - `positive.*`, `negative.*` of the N*S*D cells, `any_norm.*` of the S*D cells: `rungs`, one u8
//!   per cell, is the number of rungs reached, and `counts` the counts at those rungs as LEB128: of
//!   all cells at rung 0, then of all that reach rung 1, and so on. `first` is one u8 per cell: the
//!   number of rungs that the value at position 0 reaches. Without position 0, each count at those
//!   rungs is one less.
//!
//! Ladders of other sites have the same tensors with the site's name before them, as in
//! `resid_post.max`. Other measurements have numbers for each channel, little-endian, as
//! docs/measures.md lists them: `moments.LAYER.SITE.sum2`, for example, is f64.
//!
//! Tokens with hits have arrays by site and dimension (`hits_file.rs`).
//!
//! Everything else (names, ladder, provenance) is JSON under the metadata key `outlier`. The layout
//! is made for size: 48 layers, 4096 features and 16 sequences are 6.3 million cells, each with two
//! extremes and two ladders, and all that twice.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::hits_file;
use super::packed::{self, Packed, Rows, Shape};
use crate::error::{Error, Result};
use crate::outside::{self, complaint, json};
use crate::record::{Activations, Channels, Experts, Fold, Ladders, Moments, NormFold, SiteLadders};

/// This is raised when the layout changes.
pub(super) const VERSION: u32 = 2;
const KEY: &str = "outlier";

/// Encodes a record as the bytes of its file. Measurements of the run are left out, so that equal
/// runs give equal files.
pub fn encode(acts: &Activations) -> Result<Vec<u8>> {
    // Two tensors of one name are no file.
    check_once(acts).map_err(|problem| {
        Error::corrupt(format!("writing the activations of {}: {problem}", acts.model.id)).hint("extract again")
    })?;
    let (folds, rungs) = ([&acts.all, &acts.without_first], acts.ladder.len());
    let mut packed = Packed::default();
    let mut sound = pack_folds(&mut packed, "", folds, acts.hidden_size, rungs);
    for SiteLadders { site, width, all, without_first, .. } in &acts.sites {
        sound &= pack_folds(&mut packed, &format!("{}.", site.name()), [all, without_first], *width, rungs);
    }
    acts.measures.moments.iter().for_each(|moments| pack_moments(&mut packed, moments));
    for Experts { layer, input_sum2, coactivation, .. } in &acts.measures.experts {
        packed.numbers(format!("experts.{layer}.input_sum2"), input_sum2);
        packed.numbers(format!("experts.{layer}.coactivation"), coactivation);
    }
    hits_file::pack(&mut packed, &acts.measures);
    if !sound {
        return Err(Error::corrupt(format!(
            "writing the activations of {}: its two folds do not agree",
            acts.model.id
        ))
        .hint("the record was not made by extract_layernorms: extract again"));
    }
    let plain = Activations { measurements: Default::default(), ..acts.clone_light() };
    let mut json = serde_json::to_value(&plain).expect("records are JSON");
    json["stats_version"] = VERSION.into();
    let metadata = HashMap::from([(KEY.to_string(), json.to_string())]);
    let tensors = packed.finish();
    let views = tensors.iter().map(|(name, bytes)| {
        (name.as_str(), TensorView::new(Dtype::U8, vec![bytes.len()], bytes).expect("as many bytes as it has"))
    });
    Ok(safetensors::serialize(views, Some(metadata)).expect("shapes and sizes agree"))
}

/// Packs the folds over all positions and without position 0. Returns false if they do not agree.
fn pack_folds(packed: &mut Packed, prefix: &str, [all, first]: [&Fold; 2], hidden: usize, rungs: usize) -> bool {
    let cells = || all.norms.iter().flatten().zip(first.norms.iter().flatten());
    let norms = |side: fn(&NormFold) -> &Ladders| Rows {
        rows: cells().map(|(a, f)| (side(a), side(f))).collect(),
        hidden,
        rungs,
    };
    let any_norm = Rows { rows: all.any_norm.iter().zip(&first.any_norm).collect(), hidden, rungs };
    let name = |part: &str| format!("{prefix}{part}");
    packed.extremes(&name("max"), cells().map(|(a, f)| (&a.max[..], &f.max[..])));
    packed.extremes(&name("min"), cells().map(|(a, f)| (&a.min[..], &f.min[..])));
    packed.ladders(&name("positive"), &norms(|cell| &cell.positive))
        && packed.ladders(&name("negative"), &norms(|cell| &cell.negative))
        && packed.ladders(&name("any_norm"), &any_norm)
}

/// The name of the numbers of channels of a site.
fn moments_name(moments: &Moments, statistic: &str) -> String {
    format!("moments.{}.{}.{statistic}", moments.at.layer, moments.at.site.name())
}

fn pack_moments(packed: &mut Packed, moments: &Moments) {
    let channels = &moments.channels;
    packed.numbers(moments_name(moments, "max"), &channels.max);
    packed.numbers(moments_name(moments, "min"), &channels.min);
    packed.numbers(moments_name(moments, "sum"), &channels.sum);
    packed.numbers(moments_name(moments, "sum2"), &channels.sum2);
    packed.numbers(moments_name(moments, "sumabs"), &channels.sumabs);
    packed.numbers(moments_name(moments, "sum3"), &channels.sum3);
    packed.numbers(moments_name(moments, "sum4"), &channels.sum4);
}

/// Reads the numbers of channels of a site.
fn unpack_moments(tensor: &packed::Tensor, moments: &mut Moments) -> Decoded<()> {
    let count = moments.rows.len().checked_mul(moments.width);
    let name = |statistic| moments_name(moments, statistic);
    moments.channels = Channels {
        max: packed::read_numbers(tensor, &name("max"), count)?,
        min: packed::read_numbers(tensor, &name("min"), count)?,
        sum: packed::read_numbers(tensor, &name("sum"), count)?,
        sum2: packed::read_numbers(tensor, &name("sum2"), count)?,
        sumabs: packed::read_numbers(tensor, &name("sumabs"), count)?,
        sum3: packed::read_numbers(tensor, &name("sum3"), count)?,
        sum4: packed::read_numbers(tensor, &name("sum4"), count)?,
    };
    Ok(())
}

/// A longer file is rejected. The limit is 400 million cells, or 1,000 sequences of a model of 48
/// layers and 4,096 features.
const MAX_FILE: u64 = 4 << 30;

pub fn read(path: &Path) -> Result<Activations> {
    read_with_bytes(path).map(|(acts, _)| acts)
}

/// Reads a record. Returns it with all bytes of its file.
pub(super) fn read_with_bytes(path: &Path) -> Result<(Activations, Vec<u8>)> {
    let reading = format!("reading {}", path.display());
    let data = outside::read(path, MAX_FILE)
        .map_err(|e| outside::unreadable(path, &e, "was this analysis saved by save_results?"))?;
    from_bytes(&data, &reading).map(|acts| (acts, data))
}

/// Decodes the bytes that `encode` gave. `reading` describes their source in errors.
pub fn from_bytes(data: &[u8], reading: &str) -> Result<Activations> {
    decode(data).map_err(|problem| {
        Error::corrupt(format!("{reading}: {problem}")).hint("the file is damaged, or written by another version")
    })
}

type Decoded<T> = std::result::Result<T, String>;

/// The part of the header that is read first.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    stats_version: json::Part<{ json::SMALL }>,
}

fn decode(data: &[u8]) -> Decoded<Activations> {
    let (_, metadata) = SafeTensors::read_metadata(data).map_err(complaint)?;
    let text = metadata.metadata().as_ref().and_then(|map| map.get(KEY)).ok_or("not an activation record")?;
    let Version { stats_version: json::Part(version) } = serde_json::from_str(text).map_err(complaint)?;
    if version != VERSION {
        return Err(format!("version {} of the format, this program reads {VERSION}", json::shown(&version)));
    }
    let mut acts: Activations = serde_json::from_str(text).map_err(complaint)?;
    let file = SafeTensors::deserialize(data).map_err(complaint)?;
    let tensor = |name: &str| file.tensor(name).map(|view| view.data()).map_err(|_| format!("`{name}` is missing"));
    check_once(&acts)?;
    let sites = 1 + acts.sites.len();
    let mut room = Room::of(data.len(), sites);
    let of = Cells { sequences: acts.num_sequences, rungs: acts.ladder.len(), bytes: data.len() };
    (acts.all, acts.without_first) = folds(&tensor, "", (acts.norms.len(), acts.hidden_size), &of, &mut room)?;
    for ladders in &mut acts.sites {
        let prefix = format!("{}.", ladders.site.name());
        (ladders.all, ladders.without_first) =
            folds(&tensor, &prefix, (ladders.layers.len(), ladders.width), &of, &mut room)?;
    }
    for moments in &mut acts.measures.moments {
        // Two extremes and five sums.
        let channels = moments.rows.len().saturating_mul(moments.width);
        room.take_numbers(channels.saturating_mul(2 * size_of::<f32>() + 5 * size_of::<f64>()))?;
        unpack_moments(&tensor, moments)?;
    }
    let hidden = acts.hidden_size;
    for Experts { layer, tokens, input_sum2, coactivation, .. } in &mut acts.measures.experts {
        let count = tokens.len();
        room.take_numbers(count.saturating_mul(count.saturating_add(hidden)).saturating_mul(size_of::<f32>()))?;
        *input_sum2 = packed::read_numbers(&tensor, &format!("experts.{layer}.input_sum2"), count.checked_mul(hidden))?;
        *coactivation =
            packed::read_numbers(&tensor, &format!("experts.{layer}.coactivation"), count.checked_mul(count))?;
    }
    hits_file::unpack(&tensor, &mut acts)?;
    Ok(acts)
}

/// Checks that nothing is listed twice, which would be unpacked twice.
fn check_once(acts: &Activations) -> Decoded<()> {
    fn once<T: Eq + Hash>(what: &str, mut keys: impl Iterator<Item = T>) -> Decoded<()> {
        let mut seen = HashSet::new();
        if keys.all(|key| seen.insert(key)) { Ok(()) } else { Err(format!("{what} are there twice")) }
    }
    once("ladders of a site", acts.sites.iter().map(|ladders| ladders.site))?;
    once("moments of a site", acts.measures.moments.iter().map(|moments| moments.at))?;
    once("experts of a layer", acts.measures.experts.iter().map(|experts| experts.layer))
}

/// How much a file may still unpack to, over all its sites and layers.
struct Room {
    cells: usize,
    counts: usize,
    numbers: usize,
    bytes: usize,
}

impl Room {
    /// Of a file of so many bytes, with the ladders of so many sites.
    fn of(bytes: usize, sites: usize) -> Self {
        let most = |(any, per_byte): (usize, usize)| any.saturating_mul(sites).max(bytes.saturating_mul(per_byte));
        let numbers = NUMBERS.0.max(bytes.saturating_mul(NUMBERS.1));
        Self { cells: most(CELLS), counts: most(COUNTS), numbers, bytes }
    }

    fn take_numbers(&mut self, bytes: usize) -> Decoded<()> {
        let unlike = || format!("{bytes} bytes of numbers of channels do not fit a file of {} bytes", self.bytes);
        self.numbers = self.numbers.checked_sub(bytes).ok_or_else(unlike)?;
        Ok(())
    }
}

/// What the folds of all sites have in common.
struct Cells {
    sequences: usize,
    rungs: usize,
    /// Size of the file.
    bytes: usize,
}

/// Limits of the number of cells and counts: a number that any record may have, and how many more
/// each byte of the file may stand for. A cell takes ten bytes, or four in models that compute
/// little else than zeros; a header that claims more would only exhaust the memory. A count takes
/// one byte before it is compressed, and equal ones take almost nothing after.
const CELLS: (usize, usize) = (1 << 20, 4);
const COUNTS: (usize, usize) = (8 << 20, 64);
/// The same for bytes of numbers of channels. Those of experts without tokens are zeros: with one
/// token, all experts but a few of some hundreds.
const NUMBERS: (usize, usize) = (64 << 20, 256);

/// Decodes the folds over all positions and without position 0, whose tensors have `prefix` before
/// their names.
fn folds(
    tensor: &packed::Tensor,
    prefix: &str,
    (norms, hidden): (usize, usize),
    of: &Cells,
    room: &mut Room,
) -> Decoded<(Fold, Fold)> {
    let Cells { sequences, rungs, bytes } = *of;
    let cells = norms.checked_mul(sequences).and_then(|rows| rows.checked_mul(hidden)).filter(|cells| *cells > 0);
    let cells = cells.ok_or(format!("{norms} norms, {sequences} sequences and {hidden} features are no record"))?;
    room.cells = room.cells.checked_sub(cells).ok_or_else(|| {
        format!(
            "a header of {norms} norms, {sequences} sequences and {hidden} features does not fit a file of {bytes} bytes"
        )
    })?;
    let extremes = |name: &str| packed::read_extremes(tensor, &format!("{prefix}{name}"), cells);
    let mut ladders = |name: &str, rows: usize| {
        let shape = Shape { rows, hidden, rungs, most: room.counts };
        let (read, counts) = packed::read_ladders(tensor, &format!("{prefix}{name}"), shape)?;
        room.counts -= counts;
        Ok::<_, String>(read)
    };
    let ((max, first_max), (min, first_min)) = (extremes("max")?, extremes("min")?);
    let (positive, first_positive) = ladders("positive", norms * sequences)?;
    let (negative, first_negative) = ladders("negative", norms * sequences)?;
    let (any_norm, first_any_norm) = ladders("any_norm", sequences)?;
    let fold = |max: Vec<f32>, min: Vec<f32>, positive: Vec<Ladders>, negative: Vec<Ladders>, any_norm| {
        let extremes = max.chunks_exact(hidden).zip(min.chunks_exact(hidden));
        let mut cells = extremes.zip(positive).zip(negative).map(|(((max, min), positive), negative)| NormFold {
            max: max.to_vec(),
            min: min.to_vec(),
            positive,
            negative,
        });
        Fold { norms: (0..norms).map(|_| cells.by_ref().take(sequences).collect()).collect(), any_norm }
    };
    Ok((
        fold(max, min, positive, negative, any_norm),
        fold(first_max, first_min, first_positive, first_negative, first_any_norm),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Site, SiteId};
    use crate::stats::dense::{Dense, uniform};
    use crate::stats::normal_quantile;

    /// The size in bytes of a record of 48 layers, 4096 features and 16 sequences, and the number
    /// of its cells.
    const REAL_SIZE: (f64, f64) = (64e6, 96.0 * 4096.0 * 16.0);

    /// Standard normal values, so that every feature of every norm reaches 3.0 at some of 2,048
    /// positions.
    fn normal(layers: usize, length: usize, hidden: usize) -> Dense {
        let mut next = uniform(5);
        Dense::drawn([layers, 2, length, hidden], |_| normal_quantile(next().max(1e-12)) as f32)
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let mut dense = normal(2, 300, 7);
        dense[[0, 0, 0, 3]] = 900.0; // the first position is the extreme
        dense[[1, 1, 0, 2]] = f32::NAN;
        dense[[2, 0, 5, 2]] = f32::NEG_INFINITY;
        (0..300).for_each(|t| dense[[3, 1, t, 6]] = f32::NAN);
        let acts = dense.activations(&[0.5, 1.0, 2.5, 3.0]);
        let file = encode(&acts).unwrap();
        let back = decode(&file).unwrap();
        assert_eq!(back, acts);
        assert_eq!(encode(&back).unwrap(), file);
    }

    #[test]
    fn a_record_of_real_size_is_below_64_mb() {
        let dense = normal(2, 2048, 64);
        let ladder = crate::record::DEFAULT_LADDER;
        let size = |dense: &Dense| encode(&dense.activations(&ladder)).unwrap().len() as f64;
        let cells = 4.0 * 2.0 * 64.0;
        // The parts that do not grow with the cells have the same size in a record of zeros.
        let nothing = size(&Dense::filled(2, 2, 2048, 64, 0.0));
        let (bytes, real_cells) = REAL_SIZE;
        let per_cell = (size(&dense) - nothing) / cells;
        assert!(per_cell * real_cells < bytes, "{per_cell} bytes a cell are {} bytes", per_cell * real_cells);
    }

    #[test]
    fn folds_that_do_not_agree_are_refused() {
        let mut acts = normal(1, 300, 3).activations(&[1.0]);
        acts.without_first.norms[0][0].positive = Default::default();
        assert!(encode(&acts).unwrap_err().message.contains("do not agree"));
    }

    fn moments(width: usize) -> Moments {
        let (wide, sums) = (vec![0.0; width], vec![0.0; width]);
        let (max, min, sum) = (wide.clone(), wide, sums.clone());
        let (sum2, sumabs, sum3, sum4) = (sums.clone(), sums.clone(), sums.clone(), sums);
        Moments {
            at: SiteId { layer: 0, site: Site::FfnMid },
            width,
            rows: vec![1],
            non_finite: 0,
            max_median: Default::default(),
            channels: Channels { max, min, sum, sum2, sumabs, sum3, sum4 },
        }
    }

    #[test]
    fn numbers_of_channels_that_a_short_file_claims_are_not_unpacked() {
        let mut acts = normal(1, 2, 3).activations(&[1.0]);
        acts.measures.moments = vec![moments(1000)];
        assert_eq!(decode(&encode(&acts).unwrap()).unwrap(), acts);
        acts.measures.moments = vec![moments(3 << 20)];
        let file = encode(&acts).unwrap();
        let said = decode(&file).unwrap_err();
        assert!(file.len() < 1 << 18 && said.contains("do not fit a file of"), "{} bytes: {said}", file.len());
    }

    /// The file of a record with a word of its header in the place of another one as long.
    fn with_word(acts: &Activations, word: &str, other: &str) -> Vec<u8> {
        let (word, other) = (word.replace('"', "\\\""), other.replace('"', "\\\""));
        let mut file = encode(acts).unwrap();
        let at = file.windows(word.len()).rposition(|window| window == word.as_bytes()).unwrap();
        file[at..at + other.len()].copy_from_slice(other.as_bytes());
        file
    }

    #[test]
    fn what_is_listed_twice_is_not_unpacked_twice() {
        let mut acts = normal(1, 2, 3).activations(&[1.0]);
        let mut others = moments(8);
        others.at.layer = 1;
        acts.measures.moments = vec![moments(8), others];
        let twice = with_word(&acts, "\"layer\":1", "\"layer\":0");
        assert!(decode(&twice).unwrap_err().contains("there twice"));
        acts.measures.moments.clear();
        let of = |site| {
            let (layers, all) = (acts.norms.iter().map(|norm| norm.layer).collect(), acts.all.clone());
            SiteLadders {
                site,
                width: 3,
                layers,
                all,
                without_first: acts.without_first.clone(),
                non_finite: Vec::new(),
            }
        };
        acts.sites = vec![of(Site::Q), of(Site::K)];
        assert!(decode(&with_word(&acts, "\"site\":\"k\"", "\"site\":\"q\"")).unwrap_err().contains("there twice"));
    }

    #[test]
    fn a_record_with_something_twice_is_not_written() {
        let mut acts = normal(1, 2, 3).activations(&[1.0]);
        acts.measures.moments = vec![moments(8), moments(8)];
        assert!(encode(&acts).unwrap_err().message.contains("there twice"));
    }
}
