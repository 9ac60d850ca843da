//! Tests of parts of records: against records that are made of the sequences directly.

use super::*;
use crate::record::{BootstrapArgs, Criterion, Scope};
use crate::stats::dense::{Dense, uniform};
use crate::stats::{bootstrap, check_whole, detect, per_sequence};

const LADDER: [f32; 4] = [3.0, 4.5, 6.0, 8.0];

/// Two layers, six sequences of 10 positions and 12 features.
fn dense() -> Dense {
    let mut next = uniform(17);
    let mut dense = Dense::drawn([2, 6, 10, 12], |[_, s, _, d]| ((next() - 0.4) * (3.0 + (s + d) as f64)) as f32);
    dense[[1, 4, 2, 3]] = f32::NAN;
    dense
}

fn record(dense: &Dense, name: &str) -> Activations {
    let mut acts = dense.activations(&LADDER);
    acts.tokens.sha256 = format!("hash of {name}");
    acts.tokens.source = name.to_string();
    acts.mean_nll = Some((0..dense.sequences).map(|s| s as f32).collect());
    acts.model.num_experts = 2;
    acts.expert_coverage = vec![ExpertCoverage { layer: 1, tokens_per_expert: vec![20, 40] }];
    acts
}

#[test]
fn a_part_is_the_record_of_a_pass_over_its_sequences() {
    let dense = dense();
    let acts = record(&dense, "a");
    for chosen in [&[0usize, 3, 5][..], &[4], &[5, 4, 0, 1]] {
        let part = select(&acts, chosen).unwrap();
        check_whole(&part).unwrap();
        let numbers: Vec<u32> = chosen.iter().map(|&s| s as u32).collect();
        let direct = dense.resampled(&numbers).activations(&LADDER);
        assert_eq!((&part.all, &part.without_first), (&direct.all, &direct.without_first));
        assert_eq!((&part.non_finite, part.num_sequences), (&direct.non_finite, chosen.len()));
        for scope in [Scope::Pooled, Scope::PerSequence] {
            let criterion = Criterion { scope, magnitude_threshold: 4.5, ..Criterion::default() };
            assert_eq!(detect(&part, &criterion), detect(&direct, &criterion));
        }
        let losses: Vec<f32> = chosen.iter().map(|&s| s as f32).collect();
        assert_eq!((part.mean_nll, part.expert_coverage.len(), part.tokens.sha256.len()), (Some(losses), 0, 0));
        assert_eq!((&part.tokens.parts[0].sequences[..], part.tokens.parts[0].num_sequences), (chosen, 6));
        assert_eq!(part.tokens.parts[0].sha256, "hash of a");
    }
    let rows = per_sequence(&acts, &Criterion::default()).unwrap();
    let cut = per_sequence(&select(&acts, &[5]).unwrap(), &Criterion::default()).unwrap();
    assert_eq!((cut[0].num_features, cut[0].max_magnitude), (rows[5].num_features, rows[5].max_magnitude));
}

#[test]
fn parts_that_are_joined_again_are_the_whole() {
    let acts = record(&dense(), "a");
    let whole = select(&acts, &[0, 1, 2, 3, 4, 5]).unwrap();
    assert_eq!((&whole.tokens, &whole.expert_coverage), (&acts.tokens, &acts.expert_coverage));
    let (first, rest) = (select(&acts, &[0, 1]).unwrap(), select(&acts, &[2, 3, 4, 5]).unwrap());
    let again = join(&first, &rest).unwrap();
    assert_eq!((&again.tokens, &again.all, &again.non_finite), (&acts.tokens, &acts.all, &acts.non_finite));
    // A part of a part names the sequences of the whole.
    let inner = select(&rest, &[3, 1]).unwrap();
    assert_eq!(inner.tokens.parts[0].sequences, [5, 3]);
    let mixed = join(&inner, &first).unwrap();
    assert_eq!(mixed.tokens.parts.iter().map(|part| &part.sequences[..]).collect::<Vec<_>>(), [[5, 3, 0, 1]]);
    check_whole(&mixed).unwrap();
    let args = BootstrapArgs { n_resamples: 50, ..BootstrapArgs::default() };
    let criterion = Criterion { magnitude_threshold: 4.5, ..Criterion::default() };
    assert_eq!(bootstrap(&again, &criterion, &args), bootstrap(&acts, &criterion, &args));
}

#[test]
fn records_of_two_texts_are_joined() {
    let (a, b) = (record(&dense(), "a"), record(&dense(), "b"));
    let both = join(&a, &b).unwrap();
    check_whole(&both).unwrap();
    assert_eq!((both.num_sequences, both.tokens.source.as_str(), both.tokens.num_sequences), (12, "a + b", 12));
    assert_eq!(both.expert_coverage[0].tokens_per_expert, [40, 80]);
    assert_eq!(both.non_finite.iter().map(|cell| cell.sequence).collect::<Vec<_>>(), [4, 10]);
    assert_eq!(both.mean_nll.as_ref().unwrap()[6..], a.mean_nll.clone().unwrap()[..]);
    let part = select(&both, &[1, 7]).unwrap();
    let parts: Vec<(&str, &[usize])> =
        part.tokens.parts.iter().map(|part| (part.source.as_str(), &part.sequences[..])).collect();
    assert_eq!(parts, [("a", &[1][..]), ("b", &[1])]);
    // Only one has losses.
    let without = Activations { mean_nll: None, expert_coverage: Vec::new(), ..b };
    let both = join(&a, &without).unwrap();
    assert_eq!((both.mean_nll, both.expert_coverage.len()), (None, 0));
}

#[test]
fn halves_have_every_sequence_once() {
    let acts = record(&dense(), "a");
    let sequences = |acts: &Activations| acts.tokens.parts[0].sequences.clone();
    let odd = select(&acts, &[0, 1, 2, 3, 4]).unwrap();
    for seed in 0..20 {
        let [first, second] = halves(&odd, seed).unwrap();
        assert_eq!((first.num_sequences, second.num_sequences), (3, 2));
        let mut all = [sequences(&first), sequences(&second)].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }
    assert_eq!(halves(&acts, 3).unwrap(), halves(&acts, 3).unwrap());
    let different = (0..20).any(|seed| halves(&acts, seed).unwrap() != halves(&acts, 0).unwrap());
    assert!(different);
    assert!(halves(&select(&acts, &[1]).unwrap(), 0).unwrap_err().hint.is_some());
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    let (a, b) = (record(&dense(), "a"), record(&dense(), "b"));
    let refused = |change: fn(&mut Activations), said: &str| {
        let mut other = b.clone();
        change(&mut other);
        let error = join(&a, &other).expect_err("these records do not fit");
        assert!(error.message.contains(said) && error.hint.is_some(), "{error:?}");
    };
    refused(|acts| acts.model.id = "other".into(), "the model is dense in the first record and other");
    refused(|acts| acts.model.dtype = crate::record::ComputeDtype::Bf16, "`dtype` is f32");
    refused(|acts| acts.model.device = "cuda:0".into(), "`device` is cpu");
    refused(|acts| acts.sequence_length = 11, "`sequence_length` is 10");
    refused(|acts| acts.ladder[1] = 5.0, "with [4.5] in the first record and with [5.0]");
    refused(|acts| acts.norms.swap(0, 1), "the list of norms");
    refused(
        |acts| {
            let name = "model.safetensors".to_string();
            acts.model.files = vec![crate::record::FileHash { name, bytes: 1, kind: "".into(), digest: "".into() }];
        },
        "different weights",
    );
    let error = join(&a, &select(&a, &[2]).unwrap()).unwrap_err();
    assert!(error.message.contains("sequence 2 of a is in both records"), "{error:?}");
    for (chosen, said) in [(&[][..], "no sequences"), (&[6], "sequence 6"), (&[1, 2, 1], "1 is named twice")] {
        assert!(select(&a, chosen).unwrap_err().message.contains(said));
    }
}

#[test]
fn pairs_are_the_same_sequences_in_the_same_order() {
    let (a, b) = (record(&dense(), "a"), record(&dense(), "b"));
    assert_eq!(check_paired(&a, &a), Ok(()));
    let (part, same) = (select(&a, &[1, 2]).unwrap(), select(&a, &[1, 2]).unwrap());
    assert_eq!(check_paired(&part, &same), Ok(()));
    for (one, other, said) in [
        (&a, &b, "at place 0, one has sequence 0 of a"),
        (&a, &part, "one has 6 sequences, the other 2"),
        (&part, &select(&a, &[2, 1]).unwrap(), "the other sequence 2 of a"),
    ] {
        let error = check_paired(one, other).unwrap_err();
        assert!(error.message.contains(said) && error.hint.is_some(), "{error:?}");
    }
}

#[test]
fn damaged_parts_are_found() {
    let part = select(&record(&dense(), "a"), &[1, 2]).unwrap();
    assert_eq!(check_parts(&part.tokens), Ok(()));
    let refused = |change: fn(&mut TokensInfo)| {
        let mut info = part.tokens.clone();
        change(&mut info);
        assert!(check_parts(&info).is_err(), "{info:?}");
    };
    refused(|info| info.parts[0].sequences.push(3));
    refused(|info| info.parts[0].sequences[0] = 6);
    refused(|info| info.parts[0].sequences[0] = 2);
    refused(|info| info.parts[0].sequences.clear());
    refused(|info| info.num_sequences = 1);
}
