//! Primitives that test claims: paired_test, group_test, correlation_test, adjust_p_values.

use rhai::{Array, Dynamic, Engine, Map};

use crate::error::{Error, Result};
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::values::options::{Options, number};
use crate::record::{Alternative, Correction, TestArgs, plain};
use crate::stats;

const TEST: [&str; 3] = ["n_resamples", "alternative", "seed"];
const CORRELATION: [&str; 4] = ["n_resamples", "alternative", "seed", "ranks"];
const ALTERNATIVES: &[(&str, Alternative)] =
    &[("two-sided", Alternative::TwoSided), ("greater", Alternative::Greater), ("less", Alternative::Less)];
const CORRECTIONS: [(&str, Correction); 2] =
    [("holm", Correction::Holm), ("benjamini_hochberg", Correction::BenjaminiHochberg)];

pub(crate) fn register(engine: &mut Engine) {
    // Tests whether two lists with a value for each of the same sequences differ: sign permutation,
    // and Cohen's d_z.
    // print(paired_test([3.0, 4.0, 6.0], [1.0, 2.5, 3.0]).p_value);
    engine.register_fn("paired_test", |a: Array, b: Array| paired(&a, &b, Map::new()));
    engine.register_fn("paired_test", |a: Array, b: Array, options: Map| paired(&a, &b, options));
    // Tests whether groups of values differ in their mean: permutation of labels, and Hedges' g for
    // two groups, otherwise eta squared.
    // print(group_test([[3.0, 4.0, 6.0], [1.0, 2.5, 3.0]]).effect_size);
    engine.register_fn("group_test", |groups: Array| group(&groups, Map::new()));
    engine.register_fn("group_test", |groups: Array, options: Map| group(&groups, options));
    // Tests whether x and y are correlated: permutation of pairs; Spearman's rho, or Pearson's r
    // with `ranks: false`.
    // print(correlation_test([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 9.0]).p_value);
    engine.register_fn("correlation_test", |x: Array, y: Array| correlation(&x, &y, Map::new()));
    engine.register_fn("correlation_test", |x: Array, y: Array, options: Map| correlation(&x, &y, options));
    // p-values corrected for their number: "holm" or "benjamini_hochberg".
    // print(adjust_p_values([0.01, 0.04, 0.03], "holm"));
    engine.register_fn("adjust_p_values", |p_values: Array, method: &str| thrown(adjust(&p_values, method)));
}

fn numbers(function: &str, values: &Array) -> Result<Vec<f64>> {
    let bad = |value: &Dynamic| {
        Error::bad_argument(format!("{function}: {value} is not a number")).hint("give arrays of numbers")
    };
    values.iter().map(|value| number(value).ok_or_else(|| bad(value))).collect()
}

fn args(o: &Options) -> Result<TestArgs> {
    let default = TestArgs::default();
    Ok(TestArgs {
        n_resamples: o.whole("n_resamples")?.unwrap_or(default.n_resamples),
        alternative: o.choice("alternative", ALTERNATIVES)?.unwrap_or(default.alternative),
        seed: o.seed("seed")?.unwrap_or(default.seed),
    })
}

fn shown<T: serde::Serialize>(result: Result<T>) -> ScriptResult<Dynamic> {
    Ok(to_dynamic(&plain(&thrown(result)?)))
}

fn paired(a: &Array, b: &Array, options: Map) -> ScriptResult<Dynamic> {
    let run = || {
        let o = Options::new("paired_test", options, &TEST)?;
        stats::paired_test(&numbers("paired_test", a)?, &numbers("paired_test", b)?, &args(&o)?)
    };
    shown(run())
}

fn group(groups: &Array, options: Map) -> ScriptResult<Dynamic> {
    let run = || {
        let o = Options::new("group_test", options, &TEST)?;
        let group = |group: &Dynamic| match group.read_lock::<Array>() {
            Some(values) => numbers("group_test", &values),
            None => Err(Error::bad_argument(format!("group_test: {group} is not a list"))
                .hint("give an array of arrays, one per group")),
        };
        stats::group_test(&groups.iter().map(group).collect::<Result<Vec<_>>>()?, &args(&o)?)
    };
    shown(run())
}

fn correlation(x: &Array, y: &Array, options: Map) -> ScriptResult<Dynamic> {
    let run = || {
        let o = Options::new("correlation_test", options, &CORRELATION)?;
        let (x, y) = (numbers("correlation_test", x)?, numbers("correlation_test", y)?);
        stats::correlation_test(&x, &y, o.flag("ranks")?.unwrap_or(true), &args(&o)?)
    };
    shown(run())
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
