//! Primitives that test claims: paired_test, group_test, correlation_test, adjust_p_values.

use rhai::{Array, Dynamic, Engine, Map};

use super::criteria::CriterionOptions;
use crate::error::{Error, Result};
use crate::host::language::json::record_to_dynamic;
use crate::host::language::problem::thrown;
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions, register_with_options};
use crate::host::values::options::{Options, number};
use crate::record::option::{OptionSet, ReadFrom, option_set};
use crate::record::option_types::{Choice, Flag, Include, SeedNumber, Whole, Word};
use crate::record::{Activations, Alternative, Correction, TestArgs};
use crate::stats;

impl Word for Alternative {
    const WORDS: &'static [(&'static str, Self)] =
        &[("two-sided", Self::TwoSided), ("greater", Self::Greater), ("less", Self::Less)];
}

option_set! {
    /// The options of a permutation test.
    pub(crate) TestOptions for TestArgs {
        /// permutations drawn; where there are no more in all, each is taken once
        n_resamples: Whole = TestArgs::default().n_resamples;
        /// what is held against chance
        alternative: Choice<Alternative> = TestArgs::default().alternative;
        /// equal seeds give equal p-values
        seed: SeedNumber = TestArgs::default().seed => "a fixed one";
    }
}

option_set! {
    /// The options of paired_test. Lists take those of the test only.
    pub(crate) struct PairedOptions {
        test: Include<TestOptions>;
        criterion: Include<CriterionOptions>;
    }
}

option_set! {
    /// The options of correlation_test.
    pub(crate) struct CorrelationOptions {
        test: Include<TestOptions>;
        /// false takes the values as they are
        ranks: Flag = true;
    }
}

const CORRECTIONS: [(&str, Correction); 2] =
    [("holm", Correction::Holm), ("benjamini_hochberg", Correction::BenjaminiHochberg)];

pub(crate) const PAIRED_TEST: Declared<PairedOptions> = Declared::new(
    "paired_test",
    &[
        "paired_test(a: array, b: array, options?: map) -> map",
        "paired_test(a: activations, b: activations, value: string, options?: map) -> map",
    ],
    "Whether values of the same sequences differ between two models or settings: permutation of signs, Cohen's d_z. Of two \
     records, the value is a number of per_sequence (num_features, max_magnitude, total_occurrences, mean_nll, \
     mean_layer_percentage, mean_seq_percentage) under the criterion of the options; records of other tokens or other sequences \
     are refused. Lists say nothing of their sequences: that they are paired is then up to the script.",
    acts!(
        r#"let other = load_model("examples/shakespeare-olmoe", #{ dtype: "bf16" }).extract_layernorms(tokens);
print(paired_test(acts, other, "max_magnitude").p_value);"#
    ),
);

pub(crate) const GROUP_TEST: Declared<TestOptions> = Declared::new(
    "group_test",
    &["group_test(groups: array, options?: map) -> map"],
    "Whether groups of values differ in their mean: permutation of labels; Hedges' g for two groups, else eta squared.",
    "print(group_test([[3.0, 4.0, 6.0], [1.0, 2.5, 3.0]]).effect_size);",
);

pub(crate) const CORRELATION_TEST: Declared<CorrelationOptions> = Declared::new(
    "correlation_test",
    &["correlation_test(x: array, y: array, options?: map) -> map"],
    "Whether two lists go together: permutation of pairs; Spearman's rho, or Pearson's r.",
    "print(correlation_test([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 9.0]).p_value);",
);

pub(crate) const ADJUST_P_VALUES: Declared<NoOptions> = Declared::new(
    "adjust_p_values",
    &["adjust_p_values(p_values: array, method: string) -> array"],
    "p-values corrected for their number: \"holm\" or \"benjamini_hochberg\".",
    "print(adjust_p_values([0.01, 0.04, 0.03], \"holm\"));",
);

pub(crate) fn register(engine: &mut Engine) {
    engine.register_fn(PAIRED_TEST.name(), |a: Array, b: Array| thrown(paired_lists(&a, &b, Map::new())));
    engine.register_fn(PAIRED_TEST.name(), |a: Array, b: Array, options: Map| thrown(paired_lists(&a, &b, options)));
    register_paired::<ActivationsHandle, ActivationsHandle>(engine);
    register_paired::<ActivationsHandle, StoredHandle>(engine);
    register_paired::<StoredHandle, ActivationsHandle>(engine);
    register_paired::<StoredHandle, StoredHandle>(engine);
    register_with_options!(engine, GROUP_TEST, |groups: Array; args| {
        stats::group_test(&lists(&groups)?, &args).map(|test| record_to_dynamic(&test))
    });
    register_with_options!(engine, CORRELATION_TEST, |x: Array, y: Array; options| {
        let CorrelationOptions { test, ranks } = options;
        let name = CORRELATION_TEST.name();
        stats::correlation_test(&numbers(name, &x)?, &numbers(name, &y)?, ranks, &test)
            .map(|test| record_to_dynamic(&test))
    });
    engine.register_fn(ADJUST_P_VALUES.name(), |p_values: Array, method: &str| thrown(adjust(&p_values, method)));
}

fn register_paired<A: RecordHandle, B: RecordHandle>(engine: &mut Engine) {
    register_with_options!(engine, PAIRED_TEST, |a: A, b: B, value: &str; options| {
        paired_records(a.activations(), b.activations(), value, &options)
    });
}

fn paired_lists(a: &Array, b: &Array, options: Map) -> Result<Dynamic> {
    let name = PAIRED_TEST.name();
    let keys: Vec<_> = TestOptions::OPTIONS.iter().map(|option| option.key).collect();
    let args = TestOptions::read(&Options::new(name, options, &keys)?)?;
    stats::paired_test(&numbers(name, a)?, &numbers(name, b)?, &args).map(|test| record_to_dynamic(&test))
}

fn paired_records(a: &Activations, b: &Activations, value: &str, options: &PairedOptions) -> Result<Dynamic> {
    let named = |error: Error| error.context(PAIRED_TEST.name());
    stats::check_paired(a, b).map_err(named)?;
    let values = |acts: &Activations| stats::values_per_sequence(acts, &options.criterion, value).map_err(named);
    stats::paired_test(&values(a)?, &values(b)?, &options.test).map(|test| record_to_dynamic(&test))
}

fn numbers(function: &str, values: &Array) -> Result<Vec<f64>> {
    let bad = |value: &Dynamic| {
        let (value, hint) = match value.is_unit() {
            true => ("a missing value, ()".to_string(), "leave it out, in both lists where they are compared in pairs"),
            false => (value.to_string(), "give arrays of numbers"),
        };
        Error::bad_argument(format!("{function}: {value} is not a number")).hint(hint)
    };
    values.iter().map(|value| number(value).ok_or_else(|| bad(value))).collect()
}

fn lists(groups: &Array) -> Result<Vec<Vec<f64>>> {
    let list = |group: &Dynamic| match group.read_lock::<Array>() {
        Some(values) => numbers(GROUP_TEST.name(), &values),
        None => Err(Error::bad_argument(format!("group_test: {group} is not a list"))
            .hint("give an array of arrays, one per group")),
    };
    groups.iter().map(list).collect()
}

fn adjust(p_values: &Array, method: &str) -> Result<Array> {
    let correction = CORRECTIONS.iter().find(|(name, _)| *name == method).map(|(_, correction)| *correction);
    let correction = correction.ok_or_else(|| {
        Error::bad_argument(format!("adjust_p_values: no correction {method:?}"))
            .hint(crate::suggest::hint(method, CORRECTIONS.iter().map(|(name, _)| *name)))
    })?;
    let adjusted = stats::adjust(&numbers("adjust_p_values", p_values)?, correction)?;
    Ok(adjusted.into_iter().map(Dynamic::from).collect())
}
