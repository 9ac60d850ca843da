//! All primitives, by area: the source of the documentation in the terminal, of docs/reference.md,
//! of the definitions for editors, of completion, and of suggestions. Each primitive is declared
//! beside the function that it calls.
//!
//! Every example runs as a test.

mod text;

use std::sync::OnceLock;

pub use crate::host::values::declaration::{Area, Opt, Primitive};
pub use text::{definitions, for_reading, markdown};

use crate::host::language::names;
use crate::host::primitives::machines::{self, provision};
use crate::host::primitives::models::{extract, perplexity, requests, texts, tokens};
use crate::host::primitives::results::{exports, figures, files, reading, stored};
use crate::host::primitives::script::{assertions, flags, flow, logs, show};
use crate::host::primitives::statistics::{cells, claims, detection, hits, index, lanes, measures, parts, sweeps};

/// All areas, in the order of an experiment.
pub const AREAS: &[Area] = &[
    Area {
        title: "Models, tokens, activations",
        about: "Opening a model, reading a text, and the one pass through the model. With a machine in front they run there.",
        primitives: &[
            requests::LOAD_MODEL.primitive,
            tokens::CHECK_TEXT.primitive,
            tokens::LOAD_TOKENS.primitive,
            texts::ENCODE.primitive,
            texts::DECODE.primitive,
            extract::EXTRACT_LAYERNORMS.primitive,
            extract::EXTRACT.primitive,
            requests::ESTIMATE_VRAM.primitive,
            requests::MINIATURE_MODEL.primitive,
        ],
    },
    Area {
        title: "Statistics",
        about: "On fresh and on stored activations. A new threshold needs no model.",
        primitives: &[detection::DETECT_OUTLIERS.primitive, detection::BOOTSTRAP_CI.primitive],
    },
    Area {
        title: "Measurements",
        about: "What `extract` has measured beside outliers, on fresh and on stored activations.",
        primitives: &[
            measures::AT.primitive,
            measures::MEASURES.primitive,
            measures::CHANNELS.primitive,
            measures::TOP_VALUES.primitive,
            hits::HIT_PLACES.primitive,
            hits::TOKEN_HITS.primitive,
            hits::MARKED_TEXT.primitive,
            measures::TOKENS_NEEDED.primitive,
            lanes::COMPARE_LANES.primitive,
        ],
    },
    Area {
        title: "Results",
        about: "Folders below results/: one per analysis.",
        primitives: &[stored::SAVE_RESULTS.primitive, stored::LOAD_RESULTS.primitive, stored::HAS_RESULTS.primitive],
    },
    Area {
        title: "Looking further",
        about: "More questions to one record, without another pass.",
        primitives: &[
            sweeps::SWEEP_CRITERIA.primitive,
            index::THRESHOLD_INDEX.primitive,
            index::COUNT_FEATURES.primitive,
            index::FEATURE_DIMS.primitive,
            sweeps::SEQUENCES_NEEDED.primitive,
            sweeps::PER_SEQUENCE.primitive,
            cells::CELLS.primitive,
            parts::SEQUENCES.primitive,
            parts::HALVES.primitive,
            parts::JOIN.primitive,
            sweeps::LAYER_AGREEMENT.primitive,
            perplexity::PERPLEXITY.primitive,
        ],
    },
    Area {
        title: "Tests of claims",
        about: "Permutation tests on lists of numbers, with effect sizes.",
        primitives: &[
            claims::PAIRED_TEST.primitive,
            claims::GROUP_TEST.primitive,
            claims::CORRELATION_TEST.primitive,
            claims::ADJUST_P_VALUES.primitive,
        ],
    },
    Area {
        title: "Figures",
        about: "The numbers that figures show, and the figures: maps with kind \"lines\", \"points\", \"bars\", \"intervals\" or \"heat_map\".",
        primitives: &[
            figures::HEAT_MAP.primitive,
            figures::HEAT_MAP_DATA.primitive,
            figures::LAYER_PROFILE.primitive,
            figures::MAGNITUDE_HISTOGRAM.primitive,
            figures::SVG.primitive,
            figures::SAVE_FIGURE.primitive,
            figures::SPARKLINE.primitive,
            figures::BAR_CHART.primitive,
        ],
    },
    Area {
        title: "Tables and files",
        about: "Files are written below results/ and logs/, whole or not at all.",
        primitives: &[
            files::LIST_RESULTS.primitive,
            files::WRITE_JSON.primitive,
            files::WRITE_TEXT.primitive,
            reading::READ_TEXT.primitive,
            reading::READ_JSON.primitive,
            files::WRITE_TABLE.primitive,
            files::EXPORT_TABLES.primitive,
            exports::EXPORT_IMATRIX.primitive,
            exports::EXPORT_ACT_SCALES.primitive,
            exports::EXPORT_IGNORE_RECIPE.primitive,
            files::STDLIB_JSON.primitive,
            files::STDLIB_TEXT.primitive,
            files::HTML_TABLE.primitive,
            files::MARKDOWN_TABLE.primitive,
            files::ESCAPE_HTML.primitive,
        ],
    },
    Area {
        title: "Machines",
        about: "Machines are had, worked on and given back. Whatever a run still has when it ends is given back then.",
        primitives: &[
            provision::PROVISION_GPU.primitive,
            provision::ATTACH_GPU.primitive,
            machines::MODELS.primitive,
            provision::LIMIT_COST.primitive,
            machines::SYNC.primitive,
            machines::UPLOAD.primitive,
            machines::DOWNLOAD.primitive,
            machines::RUN_COMMAND.primitive,
            provision::TERMINATE.primitive,
            provision::TERMINATE_LEFT_OVER.primitive,
        ],
    },
    Area {
        title: "Flags, side by side, logs",
        about: "What the user asked for, work on threads, and one log per piece of work.",
        primitives: &[
            flags::ARGS.primitive,
            flow::IS_MAIN.primitive,
            flow::PARALLEL.primitive,
            flow::REPORT_FAILURE.primitive,
            logs::WITH_LOG.primitive,
            logs::LAST_LOGGED.primitive,
        ],
    },
    Area {
        title: "Showing",
        about: "Data goes to stdout, notes to stderr. print and debug are the language's own.",
        primitives: &[
            show::TABLE.primitive,
            show::PRINT_WRAPPED.primitive,
            show::SHOW.primitive,
            show::LOG.primitive,
            show::FORMAT_BYTES.primitive,
            show::FORMAT_COUNT.primitive,
            show::FORMAT_NUMBER.primitive,
            show::TO_JSON.primitive,
            show::TO_STRING.primitive,
            show::TO_DEBUG.primitive,
        ],
    },
    Area {
        title: "Tests",
        about: "For files *_test.rhai, run by `outlier test`. Under it machines are played by this one, cost nothing, and time is a number.",
        primitives: &[
            assertions::ASSERT.primitive,
            assertions::ASSERT_EQ.primitive,
            assertions::ASSERT_CLOSE.primitive,
            assertions::ASSERT_THROWS.primitive,
            assertions::FAKE_FAILURE.primitive,
            assertions::FAKE_MACHINES.primitive,
            assertions::FAKE_CLOCK.primitive,
        ],
    },
];

pub fn all() -> impl Iterator<Item = &'static Primitive> + Clone {
    AREAS.iter().flat_map(|area| area.primitives)
}

pub fn find(name: &str) -> Option<&'static Primitive> {
    all().find(|primitive| primitive.name == name)
}

/// Functions of the language itself, by name and number of arguments.
pub fn language() -> &'static [(String, usize)] {
    static NAMES: OnceLock<Vec<(String, usize)>> = OnceLock::new();
    NAMES.get_or_init(|| names::of(&rhai::Engine::new()))
}

/// All callable names, with the primitives first.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    let word = |name: &&str| name.starts_with(|c: char| c.is_ascii_alphabetic());
    all().map(|primitive| primitive.name).chain(language().iter().map(|(name, _)| name.as_str()).filter(word))
}

#[cfg(test)]
mod tests {
    use rhai::{Dynamic, Map};

    use super::*;
    use crate::host::language::syntax;
    use crate::host::values::option_sets::Declared;
    use crate::host::values::options::Options;
    use crate::record::option::{Default, ReadFrom};

    #[test]
    fn names_and_words_are_whole() {
        let mut seen = std::collections::BTreeSet::new();
        for primitive in all() {
            assert!(seen.insert(primitive.name), "{} stands twice", primitive.name);
            assert!(primitive.summary.ends_with('.'), "{}: a summary is sentences", primitive.name);
            assert!(!primitive.example.trim().is_empty(), "{} has no example", primitive.name);
            for signature in primitive.signatures {
                assert!(signature.starts_with(&format!("{}(", primitive.name)), "{signature}");
                assert!(signature.contains(" -> "), "{signature}");
            }
            for option in primitive.options {
                assert!(!option.meaning.is_empty() && !option.kind().is_empty(), "{}: {}", primitive.name, option.key);
            }
        }
    }

    /// What is read from an option map, as text.
    fn read_as_text<S: ReadFrom<Options>>(declared: &Declared<S>, options: Map) -> String {
        match declared.read(options) {
            Ok(args) => format!("{args:?}"),
            Err(error) => error.message,
        }
    }

    /// Checks that leaving all options out is the same as giving each its documented default, and
    /// gives the number of options with such a default.
    fn check_defaults<S: ReadFrom<Options>>(declared: &Declared<S>, checked: &mut Vec<&'static str>) -> usize {
        let engine = syntax::engine();
        checked.push(declared.name());
        let mut given = Map::new();
        for option in declared.primitive.options {
            if let Default::Value(text) = option.default {
                let value = engine.eval_expression::<Dynamic>(&text());
                let value = value.unwrap_or_else(|e| panic!("{}: {}: {e}", declared.name(), option.key));
                given.insert(option.key.into(), value);
            }
        }
        let (count, name) = (given.len(), declared.name());
        assert_eq!(read_as_text(declared, given), read_as_text(declared, Map::new()), "{name}");
        count
    }

    #[test]
    fn an_option_that_is_left_out_is_its_documented_default() {
        let mut checked = Vec::new();
        let counts = [
            check_defaults(&requests::LOAD_MODEL, &mut checked),
            check_defaults(&tokens::LOAD_TOKENS, &mut checked),
            check_defaults(&texts::ENCODE, &mut checked),
            check_defaults(&texts::DECODE, &mut checked),
            check_defaults(&extract::EXTRACT_LAYERNORMS, &mut checked),
            check_defaults(&extract::EXTRACT, &mut checked),
            check_defaults(&requests::ESTIMATE_VRAM, &mut checked),
            check_defaults(&detection::DETECT_OUTLIERS, &mut checked),
            check_defaults(&detection::BOOTSTRAP_CI, &mut checked),
            check_defaults(&measures::CHANNELS, &mut checked),
            check_defaults(&measures::TOP_VALUES, &mut checked),
            check_defaults(&hits::TOKEN_HITS, &mut checked),
            check_defaults(&hits::MARKED_TEXT, &mut checked),
            check_defaults(&lanes::COMPARE_LANES, &mut checked),
            check_defaults(&stored::SAVE_RESULTS, &mut checked),
            check_defaults(&sweeps::SWEEP_CRITERIA, &mut checked),
            check_defaults(&index::THRESHOLD_INDEX, &mut checked),
            check_defaults(&sweeps::SEQUENCES_NEEDED, &mut checked),
            check_defaults(&sweeps::PER_SEQUENCE, &mut checked),
            check_defaults(&cells::CELLS, &mut checked),
            check_defaults(&parts::HALVES, &mut checked),
            check_defaults(&perplexity::PERPLEXITY, &mut checked),
            check_defaults(&claims::PAIRED_TEST, &mut checked),
            check_defaults(&claims::GROUP_TEST, &mut checked),
            check_defaults(&claims::CORRELATION_TEST, &mut checked),
            check_defaults(&figures::HEAT_MAP, &mut checked),
            check_defaults(&figures::HEAT_MAP_DATA, &mut checked),
            check_defaults(&figures::LAYER_PROFILE, &mut checked),
            check_defaults(&figures::MAGNITUDE_HISTOGRAM, &mut checked),
            check_defaults(&exports::EXPORT_ACT_SCALES, &mut checked),
            check_defaults(&exports::EXPORT_IGNORE_RECIPE, &mut checked),
            check_defaults(&provision::PROVISION_GPU, &mut checked),
            check_defaults(&machines::SYNC, &mut checked),
            check_defaults(&flow::PARALLEL, &mut checked),
        ];
        assert!(counts.iter().sum::<usize>() > 80, "{counts:?}");
        let with_options = all().filter(|primitive| !primitive.options.is_empty()).map(|primitive| primitive.name);
        assert_eq!(checked, with_options.collect::<Vec<_>>());
    }
}
