//! Tests of `activations.safetensors` with chosen sites, layers and sequences.

use std::path::Path;

use outlier::progress::Silent;
use outlier::record::{ExtractArgs, Keep, Measure, MeasureArgs, Site, TokenSource};
use outlier::results::is_full_activations;
use outlier::text::load_tokens;
use safetensors::SafeTensors;

use crate::measures::{measured, measured_on};

fn kept(folder: &Path, measure: MeasureArgs, logits: bool) -> ExtractArgs {
    let out = Some(folder.display().to_string());
    ExtractArgs { keep: Keep::Full, out, measure, logits, ..ExtractArgs::default() }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn chosen_sites_layers_and_sequences_are_those_of_the_whole_pass() {
    for model in ["llama", "olmoe"] {
        let [whole, chosen] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let all = measured(model, kept(whole.path(), MeasureArgs::default(), false));
        assert!(all.num_sequences > 1);
        let last = all.num_sequences - 1;
        let measure = MeasureArgs {
            sites: vec![Site::ResidPost],
            observe: vec![Measure::Top],
            keep_sites: vec![Site::ResidPost, Site::AttnIn, Site::Q],
            keep_layers: vec![2, 1],
            keep_sequences: vec![last],
            ..MeasureArgs::default()
        };
        let acts = measured(model, kept(chosen.path(), measure, false));
        let path = chosen.path().join("activations.safetensors");
        assert!(is_full_activations(&path), "{model}: it is known again");
        let [whole, chosen] =
            [whole, chosen].map(|at| std::fs::read(at.path().join("activations.safetensors")).unwrap());
        let (whole, chosen) = (SafeTensors::deserialize(&whole).unwrap(), SafeTensors::deserialize(&chosen).unwrap());
        let mut names: Vec<&str> = chosen.names().into_iter().collect();
        names.sort_unstable();
        let sites = [1, 2].map(|layer| ["input_layernorm", "q", "resid_post"].map(|of| format!("layers.{layer}.{of}")));
        assert_eq!(names, [vec!["input_ids".to_string()], sites.concat()].concat(), "{model}");
        let ids = |file: &SafeTensors| file.tensor("input_ids").unwrap().data().to_vec();
        let length = 4 * acts.sequence_length;
        assert_eq!(ids(&chosen), ids(&whole)[last * length..][..length], "{model}: ids of the sequence");
        for layer in [1, 2] {
            let name = format!("layers.{layer}.input_layernorm");
            let (one, every) = (chosen.tensor(&name).unwrap(), whole.tensor(&name).unwrap());
            assert_eq!(one.shape(), [1, acts.sequence_length, acts.hidden_size]);
            let bytes = one.data().len();
            assert_eq!(one.data(), &every.data()[last * bytes..][..bytes], "{model}: {name}");
            let name = format!("layers.{layer}.resid_post");
            let stream = floats(chosen.tensor(&name).unwrap().data());
            let top = acts.measures.top.iter().find(|top| top.at.layer == layer).unwrap();
            let mut compared = 0;
            for value in top.values.iter().filter(|value| value.sequence == last) {
                assert_eq!(stream[value.position * acts.hidden_size + value.dim], value.value, "{model}: {name}");
                compared += 1;
            }
            assert!(compared > 0, "{model}: {name}");
        }
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = load_tokens(&TokenSource::Ids { ids: vec![vec![1, 2]] }, &Silent).unwrap();
    let refused = |measure: MeasureArgs, message: &str| {
        let work = || measured_on("olmoe", &tokens, kept(folder.path(), measure.clone(), false));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_err();
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains(message), "{text}");
    };
    refused(MeasureArgs { keep_layers: vec![99], ..MeasureArgs::default() }, "`keep_layers` has 99");
    refused(MeasureArgs { keep_sequences: vec![1], ..MeasureArgs::default() }, "`keep_sequences` has 1");
    refused(MeasureArgs { keep_sites: vec![Site::FfnMid], ..MeasureArgs::default() }, "rows are those of experts");
}
