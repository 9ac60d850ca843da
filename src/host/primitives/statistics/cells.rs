//! Primitive cells: the statistics of chosen features as one long table.

use rhai::Engine;

use super::criteria::SkipPositions;
use crate::host::language::json::record_to_dynamic;
use crate::host::values::option_sets::Declared;
use crate::record::Criterion;
use crate::record::option::option_set;
use crate::record::option_types::{Choice, Float32, Wholes, Word};
use crate::stats;

/// The rows of a table of cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum By {
    Pooled,
    Sequence,
}

impl Word for By {
    const WORDS: &'static [(&'static str, Self)] = &[("pooled", Self::Pooled), ("sequence", Self::Sequence)];
}

option_set! {
    /// The options of cells.
    pub(crate) struct CellOptions {
        /// the features, one or several
        dims: Wholes;
        /// a row over all sequences together, or one for each sequence
        by: Choice<By> = By::Pooled;
        /// |x| from which a value is a hit; a rung of the ladder
        magnitude_threshold: Float32 = Criterion::default().magnitude_threshold;
        skip_positions: SkipPositions;
    }
}

pub(crate) const CELLS: Declared<CellOptions> = Declared::new(
    "cells",
    &["cells(acts: activations, options: map) -> array", "cells(stored: results, options: map) -> array"],
    "Statistics of chosen features as one long table, a row for each norm and feature: layer, site, feature_dim, sequence (by: \
     \"sequence\"), max_value, min_value, hits and their share of positions. write_table writes it.",
    acts!(
        "table([\"layer\", \"site\", \"max_value\", \"hits\"], acts.cells(#{ dims: [5], magnitude_threshold: 3.0 }));"
    ),
);

pub(crate) fn register(engine: &mut Engine) {
    CELLS.register_on_records(engine, |acts, o| {
        let CellOptions { dims, by, magnitude_threshold, skip_positions } = o;
        let criterion = Criterion { magnitude_threshold, skip_positions, ..Criterion::default() };
        stats::cells(acts, &dims, by == By::Sequence, &criterion).map(|rows| record_to_dynamic(&rows))
    });
}
