//! `outlier rethreshold results/NAME --magnitude 7`: another criterion on a stored record, as one table. Needs no model.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::allow::path;
use super::table::print_table;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::record::{Answer, BootstrapArgs, Criterion, Detection, LayerUnit, Scope, plain};
use crate::results::Stored;
use crate::terminal;
use crate::words::counted;
use crate::{results, stats};

#[derive(Args)]
pub(super) struct Rethreshold {
    /// Folder of a finished analysis, or its name below results/.
    #[arg(value_parser = path())]
    results: PathBuf,
    /// |x| from which a value is a hit; between two rungs of the record's ladder the answer has bounds. The other options
    /// are those of the stored analysis where they are left out.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    magnitude: Option<f32>,
    /// Least share of layers, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    layers: Option<f64>,
    /// Least share of positions, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    positions: Option<f64>,
    /// What counts as a layer.
    #[arg(long)]
    unit: Option<Unit>,
    /// All sequences together, or each by itself.
    #[arg(long)]
    scope: Option<Over>,
    /// Leave out position 0 of each sequence.
    #[arg(long)]
    skip_first: bool,
    /// Share of layers from which a feature is systematic.
    #[arg(long, value_name = "SHARE")]
    systematic: Option<f64>,
    /// Resamples for the intervals, 0 for none.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    resamples: usize,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Unit {
    Norm,
    Block,
}

#[derive(Clone, Copy, ValueEnum)]
enum Over {
    Pooled,
    PerSequence,
}

/// A stored analysis by its folder or by its name below `results/`.
pub(super) fn stored(given: &Path) -> Result<Stored> {
    let folder = match given.is_dir() {
        true => given.to_path_buf(),
        false => Path::new("results").join(given.strip_prefix("results").unwrap_or(given)),
    };
    let missing = |error| results::missing(Path::new("results"), &folder, error);
    if !folder.exists() {
        let message = format!("there are no results \"{}\"", given.display());
        let hint = missing(Error::not_found("")).hint.unwrap_or_default();
        return Err(Error::not_found(message).hint(hint));
    }
    let stored = results::load(&folder).map_err(missing)?;
    if let Some(changed) = &stored.changed {
        terminal::note(format!("warning: {changed}"));
    }
    Ok(stored)
}

pub(super) fn run(asked: &Rethreshold) -> Result<Exit> {
    let stored = stored(&asked.results)?;
    let before = &stored.found.criterion;
    if let (Some(own), true) = (&before.own, asked.layers.is_none() || asked.positions.is_none()) {
        let message = format!("the stored criterion is {own}, and functions are not stored: it cannot be asked again");
        return Err(Error::bad_argument(message)
            .hint("--layers 0.25 --positions 0.06 asks with the limits of Dettmers et al., in place of the function"));
    }
    let criterion = Criterion {
        magnitude_threshold: asked.magnitude.unwrap_or(before.magnitude_threshold),
        min_layer_percentage: asked.layers.unwrap_or(before.min_layer_percentage),
        min_seq_percentage: asked.positions.unwrap_or(before.min_seq_percentage),
        layer_unit: match asked.unit {
            Some(Unit::Norm) => LayerUnit::Norm,
            Some(Unit::Block) => LayerUnit::Block,
            None => before.layer_unit,
        },
        scope: match asked.scope {
            Some(Over::Pooled) => Scope::Pooled,
            Some(Over::PerSequence) => Scope::PerSequence,
            None => before.scope,
        },
        skip_positions: if asked.skip_first { 1 } else { before.skip_positions },
        systematic_layers: asked.systematic.unwrap_or(before.systematic_layers),
        own: None,
    };
    let found = stats::detect(&stored.activations, &criterion)?;
    if asked.json {
        terminal::line(serde_json::to_string_pretty(&plain(&found)).expect("records are JSON"));
        return Ok(Exit::Done);
    }
    let terms = format!("criterion, as stored where no option says otherwise: {}", options(&criterion));
    terminal::sentence(&terms);
    let of_layers = match found.layer_unit() {
        "norm" => "% of norms",
        "decoder layer" => "% of decoder layers",
        _ => "% of layers",
    };
    let columns = ["feature", "sequence", "passes", "class", of_layers, "% of positions", "max |x|", "hits"];
    print_table(&columns, rows(&found));
    terminal::sentence(summary(&found));
    let resampled = found.answer == Answer::Exact && criterion.scope == Scope::Pooled && asked.resamples > 0;
    if resampled && stored.activations.num_sequences > 1 {
        let args = BootstrapArgs { n_resamples: asked.resamples, ..BootstrapArgs::default() };
        let ci = stats::bootstrap(&stored.activations, &criterion, &args)?;
        let text = format!(
            "features, 95 % interval over sequences: {} to {}; {} in {:.1} % of resamples",
            ci.num_features.low,
            ci.num_features.high,
            ci.classification.name(),
            100.0 * ci.classification_held
        );
        terminal::sentence(&text);
    }
    Ok(Exit::Done)
}

/// The criterion as a script gives it.
fn options(criterion: &Criterion) -> String {
    let options = plain(criterion);
    let given = options.as_object().into_iter().flatten().map(|(key, value)| format!("{key}: {value}"));
    format!("#{{ {} }}", given.collect::<Vec<_>>().join(", "))
}

/// Features that pass, then those that may.
fn rows(found: &Detection) -> Vec<Vec<String>> {
    let at_least = if found.answer == Answer::Bracketed { "≥ " } else { "" };
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let sequence = |sequence: Option<usize>| sequence.map_or("all".to_string(), |s| s.to_string());
    let certain = found.features.iter().map(|f| {
        let layers = match found.criterion.layer_unit {
            LayerUnit::Norm => f.layer_percentage,
            LayerUnit::Block => f.layer_percentage_blocks,
        };
        vec![
            f.feature_dim.to_string(),
            sequence(f.sequence),
            "yes".to_string(),
            f.classification.name().to_string(),
            percent(layers),
            format!("{at_least}{}", percent(f.seq_percentage)),
            format!("{:.2}", f.max_magnitude),
            format!("{at_least}{}", f.total_occurrences),
        ]
    });
    let possible = found.bracket.iter().flat_map(|bracket| &bracket.possible_features).map(|f| {
        vec![
            f.feature_dim.to_string(),
            sequence(f.sequence),
            "maybe".to_string(),
            f.classification.name().to_string(),
            percent(f.layer_percentage),
            format!("≤ {}", percent(f.seq_percentage)),
            format!("{:.2}", f.max_magnitude),
            String::new(),
        ]
    });
    certain.chain(possible).collect()
}

fn summary(found: &Detection) -> String {
    let threshold = found.criterion.magnitude_threshold;
    match &found.bracket {
        None => {
            let features = counted(found.num_features, "feature");
            format!("|x| >= {threshold}, exact: {features}, {}", found.classification.name())
        }
        Some(bracket) => {
            let rung = |rung: Option<f32>| rung.map_or("none".to_string(), |rung| rung.to_string());
            let classes = match found.classification == bracket.classification_high {
                true => found.classification.name().to_string(),
                false => format!("{} or {}", found.classification.name(), bracket.classification_high.name()),
            };
            let most = counted(bracket.num_features_high, "feature");
            let features = match found.num_features == bracket.num_features_high {
                true => most,
                false => format!("{} to {most}", found.num_features),
            };
            format!(
                "|x| >= {threshold}, bracketed by the rungs {} and {}: {features}, {classes}",
                rung(bracket.rung_below),
                rung(bracket.rung_above),
            )
        }
    }
}
