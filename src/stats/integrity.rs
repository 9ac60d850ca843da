//! Checks that the parts of a record fit each other. They run before any statistic, because a
//! record may come from a file.
//!
//! A damaged record is an error of kind `corrupt` that names the damaged part.

use std::collections::HashSet;

use super::count::check_count;
use super::measured::check_measures;
use super::parts::check_parts;
use crate::error::{Error, Result};
use crate::record::{Activations, ExpertCoverage, Fold, Ladder, Ladders, LaneOutcome, NormFold, SiteId};

/// Answers about hits have an entry for each token.
const MAX_TOKENS_WITH_HITS: usize = 1 << 26;

const DAMAGED: &str = "the record is damaged or from another version of this program: extract again";

/// Checks lengths, order and ranges of `fold`, one of the two of `acts`.
pub fn check_record(acts: &Activations, fold: &Fold) -> Result<()> {
    check(acts, fold).map_err(|error| error.context(checking(acts)).hint(DAMAGED))
}

fn checking(acts: &Activations) -> String {
    format!("checking the activations of {}", acts.model.id)
}

/// Checks a whole record from a file or a machine: its shape, both folds, and all other parts.
pub fn check_whole(acts: &Activations) -> Result<()> {
    let shape = [acts.norms.len(), acts.num_sequences, acts.hidden_size, acts.sequence_length];
    if shape.contains(&0) {
        let [norms, sequences, features, positions] = shape;
        return Err(Error::corrupt(format!(
            "the activations of {} have {norms} norms, {sequences} sequences, {features} features and {positions} positions",
            acts.model.id
        ))
        .hint(DAMAGED));
    }
    check_record(acts, &acts.all)?;
    check_record(acts, &acts.without_first)?;
    for of_site in acts.sites.iter().filter_map(|ladders| acts.at(ladders.site)) {
        check_whole(&of_site)?;
    }
    check_metadata(acts)
}

/// Checks the parts of a record other than its folds: norms, values that are not finite, and
/// experts belong to the model, occur once, and have counts that its positions allow.
pub fn check_metadata(acts: &Activations) -> Result<()> {
    metadata(acts).map_err(|error| error.context(checking(acts)).hint(DAMAGED))
}

fn metadata(acts: &Activations) -> Result<()> {
    let norms: HashSet<SiteId> = acts.norms.iter().copied().filter(|norm| norm.layer < acts.num_layers).collect();
    check_count("norms of the model, each named once,", norms.len(), acts.norms.len())?;
    check_parts(&acts.tokens)?;
    check_count("sequences of the tokens", acts.tokens.num_sequences, acts.num_sequences)?;
    check_count("positions of the tokens", acts.tokens.sequence_length, acts.sequence_length)?;
    if !acts.measures.hits.is_empty() && acts.num_sequences.saturating_mul(acts.sequence_length) > MAX_TOKENS_WITH_HITS
    {
        return Err(Error::corrupt(format!("hits by token, of more than {MAX_TOKENS_WITH_HITS} tokens")));
    }
    let mut places = HashSet::new();
    for place in &acts.non_finite {
        let values = (acts.sequence_length as u64).saturating_mul(acts.hidden_size as u64);
        let counted = place.nan.checked_add(place.infinite).is_some_and(|count| count <= values);
        let is_there = norms.contains(&place.norm) && place.sequence < acts.num_sequences;
        if !counted || !is_there || !places.insert((place.norm, place.sequence)) {
            return Err(Error::corrupt(format!("values that are not finite: {place:?}")));
        }
    }
    let mut layers = HashSet::new();
    let tokens = (acts.num_sequences as u64).saturating_mul(acts.sequence_length as u64);
    for ExpertCoverage { layer, tokens_per_expert } in &acts.expert_coverage {
        let experts = tokens_per_expert.len();
        // A token is routed to an expert at most once.
        let counted = tokens_per_expert.iter().all(|&of_expert| of_expert <= tokens);
        if *layer >= acts.num_layers || experts > acts.model.num_experts || !counted || !layers.insert(*layer) {
            return Err(Error::corrupt(format!("tokens of {experts} experts in layer {layer}")));
        }
    }
    let light = acts.clone_light();
    let of_sites = acts.sites.iter().filter_map(|ladders| light.at(ladders.site));
    of_sites.into_iter().try_for_each(|of_site| metadata(&of_site))?;
    let mut sites = HashSet::new();
    if let Some(twice) = acts.sites.iter().find(|ladders| !sites.insert(ladders.site)) {
        return Err(Error::corrupt(format!("the ladders of {} are there twice", twice.site.name())));
    }
    check_lanes(acts)?;
    check_measures(acts)
}

/// Checks that lanes have a number for each sequence.
fn check_lanes(acts: &Activations) -> Result<()> {
    let mut names = HashSet::new();
    let losses = if acts.sequence_length > 1 { acts.num_sequences } else { 0 };
    for lane in &acts.lanes {
        let LaneOutcome { name, changes: _, mean_nll, kl, top1_agreement, top1_probability, norm_hits, attention_top1 } =
            lane;
        if !names.insert(name) {
            return Err(Error::corrupt(format!("the lane {name:?} is there twice")));
        }
        check_count("losses of a lane", mean_nll.len(), losses)?;
        let hits = norm_hits.iter().flat_map(|of| [of.at_least_3.len(), of.at_least_6.len()]);
        let attention = attention_top1.iter().map(|of| of.probability.len());
        let numbers = [kl.len(), top1_agreement.len(), top1_probability.len()];
        let mut all = numbers.into_iter().chain(hits).chain(attention);
        all.try_for_each(|found| check_count("numbers of a lane", found, acts.num_sequences))?;
        let mut layers = norm_hits.iter().map(|of| of.at.layer).chain(attention_top1.iter().map(|of| of.layer));
        if let Some(layer) = layers.find(|layer| *layer >= acts.num_layers) {
            return Err(Error::corrupt(format!("lane {name:?} has layer {layer} of {}", acts.num_layers)));
        }
    }
    Ok(())
}

fn check(acts: &Activations, fold: &Fold) -> Result<()> {
    let rungs_climb = acts.ladder.windows(2).all(|pair| pair[0] < pair[1]);
    if !rungs_climb || !acts.ladder.iter().all(|rung| rung.is_finite() && *rung > 0.0) {
        return Err(Error::corrupt(format!("the ladder {:?} is not positive and ascending", acts.ladder)));
    }
    check_count("norms", fold.norms.len(), acts.norms.len())?;
    if let Some(losses) = &acts.mean_nll {
        check_count("losses", losses.len(), acts.num_sequences)?;
    }
    for (norm, sequences) in acts.norms.iter().zip(&fold.norms) {
        let name = norm.name();
        check_count(&format!("sequences of {name}"), sequences.len(), acts.num_sequences)?;
        for (sequence, cell) in sequences.iter().enumerate() {
            check_cell(acts, cell).map_err(|error| error.context(format!("{name}, sequence {sequence}")))?;
        }
    }
    check_count("sequences of the union over norms", fold.any_norm.len(), acts.num_sequences)?;
    for (sequence, ladders) in fold.any_norm.iter().enumerate() {
        let place = |error: Error| error.context(format!("union over norms, sequence {sequence}"));
        check_ladders(acts, ladders).map_err(place)?;
    }
    Ok(())
}

fn check_cell(acts: &Activations, cell: &NormFold) -> Result<()> {
    check_count("maxima", cell.max.len(), acts.hidden_size)?;
    check_count("minima", cell.min.len(), acts.hidden_size)?;
    check_ladders(acts, &cell.positive)?;
    check_ladders(acts, &cell.negative)
}

fn check_ladders(acts: &Activations, ladders: &Ladders) -> Result<()> {
    if !ladders.is_consistent() {
        return Err(Error::corrupt("counts and features do not belong together"));
    }
    let mut before = None;
    for Ladder { feature, counts } in ladders.iter() {
        if let Some(before) = before.replace(feature).filter(|&before| before >= feature) {
            return Err(Error::corrupt(format!("feature {feature} stands behind feature {before}")));
        }
        let fits = (feature as usize) < acts.hidden_size && counts.len() <= acts.ladder.len();
        let first_fits = counts.first().is_none_or(|&first| first as usize <= acts.sequence_length);
        if !fits || !first_fits || counts.windows(2).any(|pair| pair[0] < pair[1]) {
            return Err(Error::corrupt(format!("feature {feature} of {} has counts {counts:?}", acts.hidden_size)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::dense::Dense;
    use super::*;
    use crate::error::Kind;
    use crate::record::NonFinite;

    fn record() -> Activations {
        Dense::filled(2, 2, 3, 4, 7.0).activations(&[3.0, 6.0])
    }

    fn change(row: &mut Ladders, damage: fn(&mut Vec<(u32, Vec<u32>)>)) {
        let mut ladders: Vec<_> = row.iter().map(|ladder| (ladder.feature, ladder.counts.to_vec())).collect();
        damage(&mut ladders);
        *row = ladders.into_iter().collect();
    }

    fn refused(damage: fn(&mut Activations)) -> String {
        let mut acts = record();
        damage(&mut acts);
        let error = check_record(&acts, &acts.all).expect_err("this damage must be found");
        assert_eq!(error.kind, Kind::Corrupt);
        error.message
    }

    #[test]
    fn a_sound_record_passes() {
        let acts = record();
        assert_eq!(check_record(&acts, &acts.all), Ok(()));
        assert_eq!(check_record(&acts, &acts.without_first), Ok(()));
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let found = refused(|acts| acts.all.norms[3][1].max.truncate(3));
        assert!(found.ends_with("layers.1.post_attention_layernorm, sequence 1: 3 maxima, expected 4"), "{found}");
        let found = refused(|acts| change(&mut acts.all.any_norm[1], |row| row[2].1 = vec![1, 2]));
        assert!(found.ends_with("union over norms, sequence 1: feature 2 of 4 has counts [1, 2]"), "{found}");
    }

    #[test]
    fn experts_norms_and_places_that_the_model_does_not_have_are_refused() {
        fn refused(damage: fn(&mut Activations)) {
            let mut acts = record();
            acts.model.num_experts = 2;
            acts.expert_coverage = vec![ExpertCoverage { layer: 1, tokens_per_expert: vec![0, 6] }];
            acts.non_finite = vec![NonFinite { norm: acts.norms[0], sequence: 1, nan: 3, infinite: 9 }];
            assert_eq!(check_metadata(&acts), Ok(()));
            damage(&mut acts);
            assert_eq!(check_metadata(&acts).expect_err("this damage must be found").kind, Kind::Corrupt);
        }
        refused(|acts| acts.sequence_length = usize::MAX);
        refused(|acts| acts.tokens.num_sequences += 1);
        refused(|acts| acts.norms[1] = acts.norms[0]);
        refused(|acts| acts.norms[1].layer = 2);
        refused(|acts| acts.expert_coverage[0].layer = 2);
        refused(|acts| acts.expert_coverage.push(acts.expert_coverage[0].clone()));
        refused(|acts| acts.expert_coverage[0].tokens_per_expert.push(0));
        refused(|acts| acts.expert_coverage[0].tokens_per_expert[0] = 7);
        refused(|acts| acts.non_finite[0].sequence = 2);
        refused(|acts| acts.non_finite[0].nan = 4);
        refused(|acts| acts.non_finite[0].nan = u64::MAX);
        refused(|acts| acts.non_finite.push(acts.non_finite[0].clone()));
    }

    #[test]
    fn every_other_damage_is_found() {
        refused(|acts| acts.ladder = vec![6.0, 3.0]);
        refused(|acts| acts.ladder[0] = f32::NAN);
        refused(|acts| acts.all.norms.truncate(1));
        refused(|acts| acts.all.norms[0].truncate(1));
        refused(|acts| acts.all.norms[0][0].min.push(0.0));
        refused(|acts| acts.all.any_norm.truncate(1));
        refused(|acts| change(&mut acts.all.norms[0][0].positive, |row| row.swap(0, 1)));
        refused(|acts| change(&mut acts.all.norms[0][0].positive, |row| row[3].0 = 4));
        refused(|acts| change(&mut acts.all.norms[0][0].positive, |row| row[0].1 = vec![3, 3, 3]));
        refused(|acts| change(&mut acts.all.norms[0][0].positive, |row| row[0].1 = vec![4]));
    }
}
