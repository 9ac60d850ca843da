//! Correction of the p-values of several tests.
//!
//! Adjusted p-values after Holm 1979 (Scand. J. Statist. 6) and Benjamini & Hochberg 1995 (JRSS B
//! 57).

use crate::error::{Error, Result};
use crate::record::Correction;

/// The adjusted p-values, in the order of `p_values`.
pub fn adjust(p_values: &[f64], correction: Correction) -> Result<Vec<f64>> {
    if let Some(bad) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::bad_argument(format!("{bad:?} is not a p-value")).hint("p-values are between 0 and 1"));
    }
    let n = p_values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; n];
    match correction {
        Correction::Holm => {
            let mut largest: f64 = 0.0;
            for (rank, &i) in order.iter().enumerate() {
                largest = largest.max((n - rank) as f64 * p_values[i]).min(1.0);
                adjusted[i] = largest;
            }
        }
        Correction::BenjaminiHochberg => {
            let mut smallest: f64 = 1.0;
            for (rank, &i) in order.iter().enumerate().rev() {
                smallest = smallest.min(n as f64 / (rank + 1) as f64 * p_values[i]);
                adjusted[i] = smallest;
            }
        }
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use super::*;

    // from statsmodels.stats.multitest import multipletests               # statsmodels 0.15.0
    // p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.6]
    // for m in "holm", "fdr_bh": print(multipletests(p, method=m)[1].tolist())
    #[test]
    fn is_that_of_statsmodels() {
        let p_values = [0.01, 0.04, 0.03, 0.005, 0.2, 0.6];
        for (correction, want) in [
            (Correction::Holm, [0.05, 0.12, 0.12, 0.03, 0.4, 0.6]),
            (Correction::BenjaminiHochberg, [0.03, 0.06, 0.06, 0.03, 0.24, 0.6]),
        ] {
            let got = adjust(&p_values, correction).unwrap();
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12), "{got:?}");
        }
    }

    #[test]
    fn one_test_and_none_need_no_correction() {
        assert_eq!(adjust(&[0.2], Correction::Holm).unwrap(), [0.2]);
        assert_eq!(adjust(&[], Correction::BenjaminiHochberg).unwrap(), [0.0; 0]);
        assert!(adjust(&[0.5, 1.5], Correction::Holm).is_err() && adjust(&[f64::NAN], Correction::Holm).is_err());
    }
}
