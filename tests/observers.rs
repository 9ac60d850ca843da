//! Tests of an observer of a site that no analysis uses, against Hugging Face transformers.

use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use outlier::engine::observe::{Observer, Observers};
use outlier::engine::{extract, pass_over};
use outlier::error::Result;
use outlier::hub::{self, Access};
use outlier::progress::{Event, Progress, Silent};
use outlier::record::{ComputeDtype, ExtractArgs, Site, SiteId, TokenSource};
use outlier::tensor::Tensor;
use outlier::text::load_tokens;
use outlier::weights::open;
use serde_json::Value;

use crate::oracle::{fixtures, load_args};

/// The largest magnitude of the residual stream behind each layer.
#[derive(Default)]
struct Largest {
    per_layer: Vec<f32>,
    /// Sequences shown, of each layer.
    shown: Vec<usize>,
}

impl Observer for Largest {
    fn wants(&self, site: SiteId) -> bool {
        site.site == Site::ResidPost
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        self.per_layer.resize(self.per_layer.len().max(site.layer + 1), 0.0);
        self.shown.resize(self.per_layer.len(), 0);
        let largest = x.values()?.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        self.per_layer[site.layer] = self.per_layer[site.layer].max(largest);
        self.shown[site.layer] += sequences.len();
        Ok(())
    }

    fn save(&mut self, _layers: usize, _checkpoint: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn resume(&mut self, _layers: usize, _checkpoint: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) {}
}

/// What transformers has at places that no analysis looks at, in the model of this fixture.
fn reference(folder: &Path) -> Value {
    let name = folder.file_name().unwrap().to_string_lossy();
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(format!("sites/{name}.json"))).unwrap()).unwrap()
}

/// Dense and a mixture: the residual stream is complete at different places.
fn sites() -> Vec<PathBuf> {
    ["llama", "mixtral"].map(|name| fixtures().join(name)).into()
}

/// Notes which bars begin and end.
#[derive(Default)]
struct Bars(Mutex<Vec<&'static str>>);

impl Progress for Bars {
    fn event(&self, event: Event) {
        match event {
            Event::Begin { .. } => self.0.lock().unwrap().push("begin"),
            Event::End => self.0.lock().unwrap().push("end"),
            _ => (),
        }
    }

    fn interrupted(&self) -> bool {
        false
    }
}

/// The bar of the layers stayed open while the head was computed, and behind the pass.
#[test]
fn the_bar_of_a_pass_ends_with_its_layers() {
    let folder = &sites()[0];
    let ids = TokenSource::Ids { ids: vec![vec![1, 2, 3]] };
    let tokens = load_tokens(&ids, &Silent).unwrap();
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    let model = open(files, &load_args(folder, ComputeDtype::F32)).unwrap();
    let bars = Bars::default();
    extract(&model, &tokens, &ExtractArgs::default(), &bars).unwrap();
    assert_eq!(*bars.0.lock().unwrap(), ["begin", "end"]);
}

#[test]
fn the_residual_stream_behind_each_layer_is_that_of_transformers() {
    for folder in sites() {
        let reference = reference(&folder);
        let ids: Vec<Vec<u32>> = serde_json::from_value(reference["input_ids"].clone()).unwrap();
        let sequences = ids.len();
        let tokens = load_tokens(&TokenSource::Ids { ids }, &Silent).unwrap();
        let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
        let model = open(files, &load_args(&folder, ComputeDtype::F32)).unwrap();
        let mut largest = Largest::default();
        let observers = Observers::new(vec![&mut largest]);
        pass_over(&model, &tokens, &ExtractArgs::default(), observers, &Silent).unwrap();
        let expected: Vec<f64> = serde_json::from_value(reference["resid_post"]["largest"].clone()).unwrap();
        let place = folder.display();
        assert_eq!(largest.shown, vec![sequences; expected.len()], "{place}: sequences of each layer");
        for (layer, (got, expected)) in largest.per_layer.iter().zip(&expected).enumerate() {
            let error = (*got as f64 / expected - 1.0).abs();
            assert!(error < 1e-5, "{place}, layer {layer}: {got}, transformers {expected}");
        }
    }
}
