//! Permutation tests with effect sizes for paired samples, groups and correlation, with the
//! arithmetic of `scipy.stats.permutation_test`.
//!
//! Fisher 1935; Ernst 2004, Statistical Science 19. If there are no more than `n_resamples`
//! permutations, each is used once and the p-value is exact. Otherwise random permutations are
//! drawn, and the observed data counts as one of them (Phipson & Smyth 2010). The permuted units
//! must be exchangeable under the null hypothesis: sequences or models, never tokens.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::record::{Alternative, TestArgs, TestResult};
use crate::words::counted;

/// Values that differ by less than this, relative to the observed one, are ties: sums in another
/// order are rounded differently.
const TIE: f64 = 1e-12;
/// The largest number of permutations. More would change no relevant digit.
const MAX_RESAMPLES: usize = 10_000_000;

/// The null distribution: counts of permuted statistics on either side of the observed one.
struct Null {
    observed: f64,
    at_most: u64,
    at_least: u64,
    count: u64,
}

impl Null {
    fn new(observed: f64) -> Self {
        Self { observed, at_most: 0, at_least: 0, count: 0 }
    }

    fn add(&mut self, statistic: f64) {
        let tie = TIE * self.observed.abs().max(TIE);
        self.at_most += u64::from(statistic <= self.observed + tie);
        self.at_least += u64::from(statistic >= self.observed - tie);
        self.count += 1;
    }

    fn p_value(&self, alternative: Alternative, exact: bool) -> f64 {
        let one = u64::from(!exact);
        let p = |count: u64| (count + one) as f64 / (self.count + one) as f64;
        match alternative {
            Alternative::Less => p(self.at_most),
            Alternative::Greater => p(self.at_least),
            Alternative::TwoSided => (2.0 * p(self.at_most).min(p(self.at_least))).min(1.0),
        }
    }

    fn result(self, test: &str, exact: bool, args: &TestArgs, effect: (&str, f64), sizes: Vec<usize>) -> TestResult {
        TestResult {
            test: test.to_string(),
            statistic: self.observed,
            p_value: self.p_value(args.alternative, exact),
            alternative: args.alternative,
            exact,
            n_permutations: self.count,
            effect: effect.0.to_string(),
            effect_size: effect.1.is_finite().then_some(effect.1),
            sizes,
        }
    }
}

fn check(name: &str, groups: &[&[f64]], args: &TestArgs) -> Result<()> {
    let bad = |message: String, hint: &str| Err(Error::bad_argument(message).hint(hint));
    if let Some(value) = groups.iter().flat_map(|group| group.iter()).find(|value| !value.is_finite()) {
        let hint = "leave it out, in both lists where they are compared in pairs";
        return bad(format!("{name}: {value} is among the values"), hint);
    }
    if groups.iter().any(|group| group.is_empty()) {
        return bad(format!("{name}: a group has no values"), "give one value or more in each list");
    }
    if args.n_resamples == 0 || args.n_resamples > MAX_RESAMPLES {
        let message = format!("{name}: `n_resamples` is {}, outside 1 to {MAX_RESAMPLES}", args.n_resamples);
        return bad(message, &format!("{} is the usual choice", TestArgs::default().n_resamples));
    }
    Ok(())
}

/// Tests whether two lists with one value for each of the same sequences (or models) differ. Under
/// the null hypothesis the signs of the differences are exchangeable. The statistic is the mean of
/// a - b, and the effect is Cohen's d_z.
pub fn paired_test(a: &[f64], b: &[f64], args: &TestArgs) -> Result<TestResult> {
    check("paired_test", &[a, b], args)?;
    if a.len() != b.len() {
        return Err(Error::bad_argument(format!("paired_test: {} and {}", counted(a.len(), "value"), b.len()))
            .hint("pairs are what is compared: give one value of each list for every sequence"));
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let n = differences.len();
    let mut null = Null::new(mean(&differences));
    let exact = n < 32 && 1u64 << n <= args.n_resamples as u64;
    let mut add = |flipped: &mut dyn FnMut(usize) -> bool| {
        let sum: f64 = differences.iter().enumerate().map(|(i, d)| if flipped(i) { -d } else { *d }).sum();
        null.add(sum / n as f64);
    };
    if exact {
        (0..1u64 << n).for_each(|signs| add(&mut |i| signs >> i & 1 == 1));
    } else {
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        (0..args.n_resamples).for_each(|_| add(&mut |_| random.random()));
    }
    let effect = ("cohen_dz", mean(&differences) / variance(&differences).sqrt());
    Ok(null.result("paired difference of means", exact, args, effect, vec![n, n]))
}

/// Tests whether groups differ in their mean. For two groups the statistic is the difference of
/// means, and the effect is Hedges' g. For more groups it is the share of variance between groups
/// (eta squared, a monotone function of F), and only large values count.
pub fn group_test(groups: &[Vec<f64>], args: &TestArgs) -> Result<TestResult> {
    let slices: Vec<&[f64]> = groups.iter().map(Vec::as_slice).collect();
    check("group_test", &slices, args)?;
    if groups.len() < 2 {
        return Err(Error::bad_argument(format!("group_test: {}", counted(groups.len(), "group")))
            .hint("give two lists of values or more"));
    }
    let values = groups.concat();
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let mut labels: Vec<usize> = sizes.iter().enumerate().flat_map(|(label, &n)| vec![label; n]).collect();
    let two = groups.len() == 2;
    let statistic = |labels: &[usize]| {
        let mut sums = vec![0.0; sizes.len()];
        labels.iter().zip(&values).for_each(|(&label, value)| sums[label] += value);
        if two { sums[0] / sizes[0] as f64 - sums[1] / sizes[1] as f64 } else { eta_squared(&values, &sums, &sizes) }
    };
    let args = if two { args.clone() } else { TestArgs { alternative: Alternative::Greater, ..args.clone() } };
    let observed = statistic(&labels);
    let mut null = Null::new(observed);
    let exact = arrangements(&sizes).is_some_and(|count| count <= args.n_resamples as u64);
    if exact {
        let mut left = sizes.clone();
        for_each_arrangement(&mut labels, 0, &mut left, &mut |labels| null.add(statistic(labels)));
    } else {
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        for _ in 0..args.n_resamples {
            labels.shuffle(&mut random);
            null.add(statistic(&labels));
        }
    }
    let effect = if two { ("hedges_g", hedges_g(&groups[0], &groups[1])) } else { ("eta_squared", observed) };
    let test = if two { "difference of means" } else { "variance between groups" };
    Ok(null.result(test, exact, &args, effect, sizes))
}

/// Tests whether x and y are correlated. Under the null hypothesis the pairing is exchangeable. The
/// statistic, and the effect, is Pearson's r, or Spearman's rho with `ranks`.
pub fn correlation_test(x: &[f64], y: &[f64], ranks: bool, args: &TestArgs) -> Result<TestResult> {
    check("correlation_test", &[x, y], args)?;
    if x.len() != y.len() || x.len() < 3 {
        return Err(Error::bad_argument(format!("correlation_test: {} and {}", counted(x.len(), "value"), y.len()))
            .hint("give two lists of the same length, three pairs or more"));
    }
    let (x, y) = if ranks { (ranked(x), ranked(y)) } else { (x.to_vec(), y.to_vec()) };
    if variance(&x) == 0.0 || variance(&y) == 0.0 {
        return Err(Error::bad_argument("correlation_test: a list has only equal values")
            .hint("what does not vary goes together with nothing"));
    }
    let observed = pearson(&x, &y);
    let mut null = Null::new(observed);
    let n = x.len();
    let exact = (1..=n as u64).try_fold(1u64, |product, n| product.checked_mul(n));
    let exact = exact.is_some_and(|count| count <= args.n_resamples as u64);
    let mut permuted = x.clone();
    if exact {
        for_each_permutation(&mut permuted, n, &mut |x| null.add(pearson(x, &y)));
    } else {
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        for _ in 0..args.n_resamples {
            permuted.shuffle(&mut random);
            null.add(pearson(&permuted, &y));
        }
    }
    let effect = if ranks { "spearman_rho" } else { "pearson_r" };
    Ok(null.result("correlation", exact, args, (effect, observed), vec![n]))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The unbiased variance; NaN for one value.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

fn eta_squared(values: &[f64], sums: &[f64], sizes: &[usize]) -> f64 {
    let mean = mean(values);
    let total: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let between: f64 = sums.iter().zip(sizes).map(|(sum, &n)| n as f64 * (sum / n as f64 - mean).powi(2)).sum();
    between / total
}

/// Standardised difference of means with the exact correction for small samples: Hedges 1981.
fn hedges_g(a: &[f64], b: &[f64]) -> f64 {
    let degrees = (a.len() + b.len()) as f64 - 2.0;
    let squares = |values: &[f64]| if values.len() > 1 { variance(values) * (values.len() as f64 - 1.0) } else { 0.0 };
    let deviation = ((squares(a) + squares(b)) / degrees).sqrt();
    let correction = (libm::lgamma(degrees / 2.0) - libm::lgamma((degrees - 1.0) / 2.0)).exp() / (degrees / 2.0).sqrt();
    correction * (mean(a) - mean(b)) / deviation
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let (mean_x, mean_y) = (mean(x), mean(y));
    let products: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let squares = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    products / (squares(x, mean_x) * squares(y, mean_y)).sqrt()
}

/// Ranks from 1. Equal values have the mean of their ranks.
fn ranked(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Number of distinct arrangements of the labels, or None if it exceeds 64 bits.
fn arrangements(sizes: &[usize]) -> Option<u64> {
    let (mut count, mut n) = (1u64, 0u64);
    for &size in sizes {
        for k in 1..=size as u64 {
            n += 1;
            count = count.checked_mul(n)? / k;
        }
    }
    Some(count)
}

fn for_each_arrangement(labels: &mut [usize], at: usize, left: &mut [usize], visit: &mut dyn FnMut(&[usize])) {
    if at == labels.len() {
        return visit(labels);
    }
    for label in 0..left.len() {
        if left[label] > 0 {
            left[label] -= 1;
            labels[at] = label;
            for_each_arrangement(labels, at + 1, left, visit);
            left[label] += 1;
        }
    }
}

/// Heap's algorithm: visits every permutation of the first `n` values once.
fn for_each_permutation(values: &mut [f64], n: usize, visit: &mut dyn FnMut(&[f64])) {
    if n <= 1 {
        return visit(values);
    }
    for i in 0..n {
        for_each_permutation(values, n - 1, visit);
        if i + 1 < n {
            values.swap(if n.is_multiple_of(2) { i } else { 0 }, n - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // import numpy as np; from scipy import stats  # NumPy 2.4.6, SciPy 1.17.1
    // a = np.array([12, 15, 9, 14, 11, 18, 13, 16.])
    // b = np.array([10, 14, 9.5, 11, 12, 13, 12.5, 11])
    // d = lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis)
    // for alt in "two-sided", "less", "greater":
    //     for kind in "samples", "independent":
    //         print(stats.permutation_test((a, b), d, permutation_type=kind, n_resamples=np.inf,
    //                                      alternative=alt).pvalue)
    // dz = (a - b).mean() / (a - b).std(ddof=1)                           # 0.811446126402432
    // s = np.sqrt((7 * a.var(ddof=1) + 7 * b.var(ddof=1)) / 14); n = 14
    // g = np.exp(lgamma(n/2) - lgamma((n-1)/2)) / np.sqrt(n/2) * (a.mean() - b.mean()) / s
    // # 0.768981374583319
    const A: [f64; 8] = [12.0, 15.0, 9.0, 14.0, 11.0, 18.0, 13.0, 16.0];
    const B: [f64; 8] = [10.0, 14.0, 9.5, 11.0, 12.0, 13.0, 12.5, 11.0];
    const SCIPY: [(Alternative, f64, f64); 3] = [
        (Alternative::TwoSided, 0.078125, 0.13986013986013987),
        (Alternative::Less, 0.9765625, 0.9433566433566434),
        (Alternative::Greater, 0.0390625, 0.06993006993006994),
    ];

    fn close(got: f64, want: f64) -> bool {
        (got - want).abs() < 1e-12
    }

    #[test]
    fn two_lists_are_compared_as_scipy_does() {
        for (alternative, paired, independent) in SCIPY {
            let args = TestArgs { alternative, ..TestArgs::default() };
            let got = paired_test(&A, &B, &args).unwrap();
            assert!(close(got.p_value, paired) && got.exact && got.n_permutations == 256, "{got:?}");
            assert!(close(got.statistic, 1.875) && close(got.effect_size.unwrap(), 0.811446126402432));
            let got = group_test(&[A.to_vec(), B.to_vec()], &args).unwrap();
            assert!(close(got.p_value, independent) && got.exact && got.n_permutations == 12870, "{got:?}");
            assert!((got.effect_size.unwrap() - 0.768981374583319).abs() < 1e-9);
        }
    }

    // g = [np.array([3, 4, 5.]), np.array([6, 7, 9.]), np.array([2, 3.5, 4])]
    // stats.permutation_test(g, lambda *g, axis: stats.f_oneway(*g, axis=axis).statistic,
    //                        permutation_type="independent", n_resamples=np.inf,
    //                        alternative="greater").pvalue
    // # 0.017857142857142856
    #[test]
    fn more_groups_are_compared_by_the_variance_between_them() {
        let groups = [vec![3.0, 4.0, 5.0], vec![6.0, 7.0, 9.0], vec![2.0, 3.5, 4.0]];
        let got = group_test(&groups, &TestArgs::default()).unwrap();
        assert!(close(got.p_value, 0.017857142857142856) && got.n_permutations == 1680, "{got:?}");
        assert!(close(got.statistic, 0.7675438596491228) && got.alternative == Alternative::Greater);
    }

    // x = np.array([1.3, 3.6, 3.3, 12.9, 3.0, 12.0, 5.1])
    // y = np.array([29.5, 38.1, 35.5, 50.2, 57.5, 63.3, 33.1])
    // for f in stats.pearsonr, stats.spearmanr:
    //     r = stats.permutation_test((x,), lambda x: f(x, y).statistic,
    //                                permutation_type="pairings", n_resamples=np.inf)
    #[test]
    fn correlations_are_those_of_scipy() {
        let x = [1.3, 3.6, 3.3, 12.9, 3.0, 12.0, 5.1];
        let y = [29.5, 38.1, 35.5, 50.2, 57.5, 63.3, 33.1];
        let args = TestArgs::default();
        let got = correlation_test(&x, &y, false, &args).unwrap();
        assert!(close(got.statistic, 0.6409363981363663) && close(got.p_value, 0.1623015873015873), "{got:?}");
        let got = correlation_test(&x, &y, true, &args).unwrap();
        assert!(close(got.statistic, 0.4642857142857144) && close(got.p_value, 0.30238095238095236), "{got:?}");
        assert_eq!(got.n_permutations, 5040);
    }

    #[test]
    fn random_permutations_come_near_and_never_give_zero() {
        let args = TestArgs { n_resamples: 200, ..TestArgs::default() };
        let (paired, groups) =
            (paired_test(&A, &B, &args).unwrap(), group_test(&[A.to_vec(), B.to_vec()], &args).unwrap());
        assert!(!paired.exact && !groups.exact);
        assert!((paired.p_value - 0.078).abs() < 0.08 && (groups.p_value - 0.14).abs() < 0.1);
        assert_eq!(paired, paired_test(&A, &B, &args).unwrap());
        let far: Vec<f64> = A.iter().map(|a| a + 1000.0).collect();
        assert_eq!(group_test(&[far, B.to_vec()], &args).unwrap().p_value, 2.0 / 201.0);
    }

    #[test]
    fn equal_ranks_share_their_mean() {
        assert_eq!(ranked(&[5.0, 1.0, 5.0, 0.0]), [3.5, 2.0, 3.5, 1.0]);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let args = TestArgs::default();
        assert!(paired_test(&A, &B[1..], &args).unwrap_err().hint.is_some());
        assert!(group_test(&[A.to_vec()], &args).unwrap_err().hint.is_some());
        assert!(group_test(&[A.to_vec(), vec![]], &args).unwrap_err().message.contains("no values"));
        assert!(paired_test(&[f64::NAN], &[1.0], &args).unwrap_err().message.contains("NaN"));
        assert!(correlation_test(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0], true, &args).is_err());
        // Nothing varies: there is a difference, but no effect size.
        assert_eq!(paired_test(&[1.0, 1.0], &[1.0, 1.0], &args).unwrap().effect_size, None);
    }
}
