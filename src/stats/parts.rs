//! Records of some sequences of another record, and records joined, without another pass.
//!
//! All statistics are kept per sequence, so what is cut or joined is exactly what was recorded of
//! these sequences. Tokens per expert are kept for all sequences together: a part has
//! none.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::record::{
    Activations, ExpertCoverage, Fold, LaneOutcome, Measurements, Measures, NonFinite, SiteLadders, TokensInfo,
    TokensPart,
};
use crate::words::counted;

/// The largest number of norms times sequences times features of a joined record. A larger one does
/// not fit into a file.
const MAX_CELLS: usize = 400_000_000;

/// The record of the sequences `chosen`, in this order.
///
/// # Errors
/// `bad_argument` if there are none, if one does not exist, or if one is named twice.
pub fn select(acts: &Activations, chosen: &[usize]) -> Result<Activations> {
    let n = acts.num_sequences;
    if chosen.is_empty() {
        return Err(Error::bad_argument("a record of no sequences").hint("name one or more, such as [0, 1, 2]"));
    }
    if let Some(missing) = chosen.iter().find(|&&sequence| sequence >= n) {
        return Err(Error::bad_argument(format!("sequence {missing}: the record has {}", counted(n, "sequence")))
            .hint("sequences are numbered from 0"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = chosen.iter().find(|&&sequence| !seen.insert(sequence)) {
        return Err(Error::bad_argument(format!("sequence {twice} is named twice"))
            .hint("a sequence that counts twice looks like two that agree: name each once"));
    }
    let origins: Vec<Origin> = origins(&acts.tokens);
    let kept: Vec<Origin> = chosen.iter().filter_map(|&sequence| origins.get(sequence).cloned()).collect();
    let place = |sequence: usize| chosen.iter().position(|&kept| kept == sequence);
    let cut = |fold: &Fold| Fold {
        norms: fold.norms.iter().map(|cells| chosen.iter().map(|&s| cells[s].clone()).collect()).collect(),
        any_norm: chosen.iter().map(|&s| fold.any_norm[s].clone()).collect(),
    };
    let kept_cells = |cells: &[NonFinite]| -> Vec<NonFinite> {
        let kept = |cell: &NonFinite| Some(NonFinite { sequence: place(cell.sequence)?, ..cell.clone() });
        cells.iter().filter_map(kept).collect()
    };
    let of_site = |ladders: &SiteLadders| SiteLadders {
        all: cut(&ladders.all),
        without_first: cut(&ladders.without_first),
        non_finite: kept_cells(&ladders.non_finite),
        ..ladders.clone_light()
    };
    let whole = chosen.len() == n;
    Ok(Activations {
        tokens: described(&kept, acts.sequence_length),
        num_sequences: chosen.len(),
        all: cut(&acts.all),
        without_first: cut(&acts.without_first),
        non_finite: kept_cells(&acts.non_finite),
        sites: acts.sites.iter().map(of_site).collect(),
        // What was measured over all sequences together is not known of some.
        measures: Measures::default(),
        expert_coverage: if whole { acts.expert_coverage.clone() } else { Vec::new() },
        mean_nll: acts.mean_nll.as_ref().map(|losses| chosen.iter().map(|&s| losses[s]).collect()),
        lanes: acts.lanes.iter().map(|lane| lane.of_sequences(chosen)).collect(),
        full_activations: None,
        measurements: Measurements::default(),
        ..acts.clone_light()
    })
}

/// Two records of half of the sequences each, drawn at random. Of an odd number, the first has one
/// more. Each has its sequences in their order.
///
/// # Errors
/// `bad_argument` for a record of one sequence.
pub fn halves(acts: &Activations, seed: u64) -> Result<[Activations; 2]> {
    let n = acts.num_sequences;
    if n < 2 {
        return Err(
            Error::bad_argument("a record of one sequence has no halves").hint("extract with more sequences, 16 say")
        );
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let (first, second) = order.split_at_mut(n.div_ceil(2));
    first.sort_unstable();
    second.sort_unstable();
    Ok([select(acts, first)?, select(acts, second)?])
}

/// The record of the sequences of `a`, then those of `b`. Losses and tokens per expert are there if
/// both have them.
///
/// # Errors
/// `bad_argument` with what differs, if both are not of the same model, norms, ladder and length of
/// sequences, and if a sequence is in both.
pub fn join(a: &Activations, b: &Activations) -> Result<Activations> {
    comparable(a, b)?;
    let origins: Vec<Origin> = origins(&a.tokens).into_iter().chain(origins(&b.tokens)).collect();
    if let Some(twice) = repeated(&origins) {
        let message = format!("sequence {} of {} is in both records", twice.sequence, twice.set.source);
        return Err(Error::bad_argument(message).hint(
            "a sequence that counts twice looks like two that agree: acts.sequences([…]) leaves some out, and \
             `skip_sequences` of load_tokens takes others",
        ));
    }
    let cells = origins.len().saturating_mul(a.norms.len()).saturating_mul(a.hidden_size);
    if cells > MAX_CELLS {
        return Err(Error::bad_argument(format!("{} are too many for one record", counted(origins.len(), "sequence")))
            .hint("join fewer records"));
    }
    let both = |a: &Fold, b: &Fold| Fold {
        norms: a.norms.iter().zip(&b.norms).map(|(a, b)| [&a[..], &b[..]].concat()).collect(),
        any_norm: [&a.any_norm[..], &b.any_norm[..]].concat(),
    };
    let cells_of_both = |first: &[NonFinite], second: &[NonFinite]| -> Vec<NonFinite> {
        let shifted = |cell: &NonFinite| NonFinite { sequence: cell.sequence + a.num_sequences, ..cell.clone() };
        first.iter().cloned().chain(second.iter().map(shifted)).collect()
    };
    // Sites that both records have in the same layers.
    let of_site = |first: &SiteLadders| {
        let same =
            |other: &&SiteLadders| (other.site, other.width, &other.layers) == (first.site, first.width, &first.layers);
        let second = b.sites.iter().find(same)?;
        Some(SiteLadders {
            all: both(&first.all, &second.all),
            without_first: both(&first.without_first, &second.without_first),
            non_finite: cells_of_both(&first.non_finite, &second.non_finite),
            ..first.clone_light()
        })
    };
    Ok(Activations {
        tokens: described(&origins, a.sequence_length),
        num_sequences: origins.len(),
        all: both(&a.all, &b.all),
        without_first: both(&a.without_first, &b.without_first),
        non_finite: cells_of_both(&a.non_finite, &b.non_finite),
        sites: a.sites.iter().filter_map(of_site).collect(),
        measures: Measures::default(),
        expert_coverage: added(&a.expert_coverage, &b.expert_coverage),
        lanes: joined(&a.lanes, &b.lanes),
        mean_nll: a.mean_nll.as_ref().zip(b.mean_nll.as_ref()).map(|(a, b)| [&a[..], &b[..]].concat()),
        full_activations: None,
        measurements: Measurements::default(),
        ..a.clone_light()
    })
}

/// The lanes of both records, if they are the same and nothing in them depends on other sequences.
fn joined(a: &[LaneOutcome], b: &[LaneOutcome]) -> Vec<LaneOutcome> {
    let both: Option<Vec<_>> = a.iter().zip(b).map(|(a, b)| a.followed_by(b)).collect();
    both.filter(|_| a.len() == b.len()).unwrap_or_default()
}

/// Checks that both records have the same sequences, in the same order, for a comparison pair by
/// pair.
///
/// # Errors
/// `bad_argument` with the first difference.
pub fn check_paired(a: &Activations, b: &Activations) -> Result<()> {
    let unpaired = |what: String| {
        Err(Error::bad_argument(format!("the records are not paired: {what}")).hint(
            "pairs are two values of the same sequence: extract both records with the same tokens, and cut both with the \
             same acts.sequences([…]); group_test compares values of different sequences",
        ))
    };
    let (n, m) = (a.num_sequences, b.num_sequences);
    if n != m {
        return unpaired(format!("one has {}, the other {m}", counted(n, "sequence")));
    }
    if a.sequence_length != b.sequence_length {
        let length = counted(a.sequence_length, "token");
        return unpaired(format!("sequences of one have {length}, those of the other {}", b.sequence_length));
    }
    let (of_a, of_b) = (origins(&a.tokens), origins(&b.tokens));
    match of_a.iter().zip(&of_b).position(|(a, b)| !a.is_same(b)) {
        None => Ok(()),
        Some(at) => unpaired(format!("at place {at}, one has {}, the other {}", of_a[at].told(), of_b[at].told())),
    }
}

/// The tokens of which a sequence is one, and its number among them.
#[derive(Clone)]
struct Origin {
    /// Without its list of sequences.
    set: TokensPart,
    sequence: usize,
}

impl Origin {
    /// True if both are the same sequence of the same ids.
    fn is_same(&self, other: &Self) -> bool {
        (&self.set.sha256, self.sequence) == (&other.set.sha256, other.sequence)
    }

    fn told(&self) -> String {
        let hash: String = self.set.sha256.chars().take(8).collect();
        format!("sequence {} of {} (sha256 {hash}…)", self.sequence, self.set.source)
    }
}

/// Where each sequence of a record is from.
fn origins(info: &TokensInfo) -> Vec<Origin> {
    let whole = [TokensPart {
        source: info.source.clone(),
        revision: info.revision.clone(),
        sha256: info.sha256.clone(),
        num_sequences: info.num_sequences,
        sequences: (0..info.num_sequences).collect(),
    }];
    let parts = if info.parts.is_empty() { &whole[..] } else { &info.parts };
    let of_part = |part: &TokensPart| {
        let set = TokensPart { sequences: Vec::new(), ..part.clone() };
        part.sequences.iter().map(move |&sequence| Origin { set: set.clone(), sequence }).collect::<Vec<_>>()
    };
    parts.iter().flat_map(of_part).collect()
}

/// A sequence that occurs twice. In a plan ids have no hash, and sequences no identity.
fn repeated(origins: &[Origin]) -> Option<&Origin> {
    let mut seen = HashSet::new();
    let mut known = origins.iter().filter(|origin| !origin.set.sha256.is_empty());
    known.find(|origin| !seen.insert((&origin.set.sha256, origin.sequence)))
}

/// The description of tokens with these origins. If they are all sequences of one set in their
/// order, it is that of the set.
fn described(origins: &[Origin], sequence_length: usize) -> TokensInfo {
    let mut parts: Vec<TokensPart> = Vec::new();
    for Origin { set, sequence } in origins {
        match parts.last_mut().filter(|last| TokensPart { sequences: Vec::new(), ..(**last).clone() } == *set) {
            Some(last) => last.sequences.push(*sequence),
            None => parts.push(TokensPart { sequences: vec![*sequence], ..set.clone() }),
        }
    }
    let mut sources: Vec<&str> = Vec::new();
    for part in &parts {
        if !sources.contains(&part.source.as_str()) {
            sources.push(&part.source);
        }
    }
    let source = sources.join(" + ");
    let revision = parts.first().and_then(|part| part.revision.clone());
    let revision = revision.filter(|_| parts.iter().all(|part| part.revision == parts[0].revision));
    let num_sequences = origins.len();
    match &parts[..] {
        [one] if one.sequences.iter().copied().eq(0..one.num_sequences) => {
            let sha256 = one.sha256.clone();
            TokensInfo { source, revision, num_sequences, sequence_length, sha256, parts: Vec::new() }
        }
        // The ids are not in the record, so their hash is not known.
        _ => TokensInfo { source, revision, num_sequences, sequence_length, sha256: String::new(), parts },
    }
}

/// Checks that the sequences of both records can be in one record.
fn comparable(a: &Activations, b: &Activations) -> Result<()> {
    let (of_a, of_b) = (&a.model, &b.model);
    let shown = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let pairs: [(&str, bool, String, String); 8] = [
        ("the model", of_a.id == of_b.id, of_a.id.clone(), of_b.id.clone()),
        (
            "the revision",
            of_a.revision == of_b.revision,
            of_a.revision.clone().unwrap_or_else(|| "none".to_string()),
            of_b.revision.clone().unwrap_or_else(|| "none".to_string()),
        ),
        ("`dtype`", of_a.dtype == of_b.dtype, of_a.dtype.name().to_string(), of_b.dtype.name().to_string()),
        ("`device`", of_a.device == of_b.device, of_a.device.clone(), of_b.device.clone()),
        (
            "the number of layers and features",
            (a.num_layers, a.hidden_size) == (b.num_layers, b.hidden_size),
            shown(&(a.num_layers, a.hidden_size)),
            shown(&(b.num_layers, b.hidden_size)),
        ),
        ("the list of norms", a.norms == b.norms, counted(a.norms.len(), "norm"), counted(b.norms.len(), "norm")),
        (
            "`sequence_length`",
            a.sequence_length == b.sequence_length,
            a.sequence_length.to_string(),
            b.sequence_length.to_string(),
        ),
        ("the ladder", a.ladder == b.ladder, rungs_beside(&a.ladder, &b.ladder), rungs_beside(&b.ladder, &a.ladder)),
    ];
    if let Some((what, _, one, other)) = pairs.into_iter().find(|(_, same, ..)| !same) {
        return Err(Error::bad_argument(format!("{what} is {one} in the first record and {other} in the second"))
            .hint("a record is of one model, one ladder and one length of sequences: extract both in the same way"));
    }
    let other = of_a.files.iter().zip(&of_b.files).find(|(a, b)| a != b).map(|(a, _)| a.name.clone());
    let differs = other.or((of_a.files.len() != of_b.files.len()).then(|| "another file".to_string()));
    match differs {
        None => Ok(()),
        Some(name) => Err(Error::bad_argument(format!("the records are of different weights: {name} differs"))
            .hint("the files of the model have changed between the passes: extract both again")),
    }
}

/// The rungs that another ladder does not have.
fn rungs_beside(ladder: &[f32], other: &[f32]) -> String {
    let own: Vec<f32> = ladder.iter().copied().filter(|rung| !other.contains(rung)).collect();
    if own.is_empty() { "without these".to_string() } else { format!("with {own:?}") }
}

/// Tokens per expert of both together, if both have the same layers and experts.
fn added(a: &[ExpertCoverage], b: &[ExpertCoverage]) -> Vec<ExpertCoverage> {
    let shape = |all: &[ExpertCoverage]| -> Vec<(usize, usize)> {
        all.iter().map(|layer| (layer.layer, layer.tokens_per_expert.len())).collect()
    };
    if shape(a) != shape(b) {
        return Vec::new();
    }
    let sum = |(a, b): (&ExpertCoverage, &ExpertCoverage)| ExpertCoverage {
        layer: a.layer,
        tokens_per_expert: a.tokens_per_expert.iter().zip(&b.tokens_per_expert).map(|(a, b)| a + b).collect(),
    };
    a.iter().zip(b).map(sum).collect()
}

/// Checks the parts of tokens: each sequence exists, and occurs once.
///
/// # Errors
/// `corrupt` with what does not fit.
pub(super) fn check_parts(info: &TokensInfo) -> Result<()> {
    if info.parts.is_empty() {
        return Ok(());
    }
    let beyond = |part: &TokensPart| {
        part.sequences.is_empty() || part.sequences.iter().any(|sequence| *sequence >= part.num_sequences)
    };
    let count: usize = info.parts.iter().map(|part| part.sequences.len()).sum();
    if count != info.num_sequences || info.parts.iter().any(beyond) || repeated(&origins(info)).is_some() {
        return Err(Error::corrupt(format!("{count} sequences in the parts of {} of the tokens", info.num_sequences)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
