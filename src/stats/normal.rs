//! The standard normal distribution in double precision, for the BCa interval.
//!
//! Quantile: Wichura 1988, "Algorithm AS 241: The Percentage Points of the Normal Distribution",
//! Applied Statistics 37(3), routine PPND16 (relative accuracy about 1e-16). Distribution function:
//! by `erfc`, which is accurate in the lower tail.

use std::f64::consts::FRAC_1_SQRT_2;

/// PPND16 uses one rational function of q = p - 1/2 up to this |q|, and two of sqrt(-ln tail)
/// beyond it.
const CENTRAL: f64 = 0.425;
const CENTRAL_SQUARED: f64 = 0.180625;
/// The boundary between the two rational functions of the tail, and the origins of both.
const FAR_TAIL: f64 = 5.0;
const NEAR_TAIL_ORIGIN: f64 = 1.6;

/// Numerator and denominator, constant term first.
struct Rational([f64; 8], [f64; 8]);

#[expect(clippy::excessive_precision, reason = "digits as printed in AS 241")]
const CENTRE: Rational = Rational(
    [
        3.3871328727963666080e0,
        1.3314166789178437745e+2,
        1.9715909503065514427e+3,
        1.3731693765509461125e+4,
        4.5921953931549871457e+4,
        6.7265770927008700853e+4,
        3.3430575583588128105e+4,
        2.5090809287301226727e+3,
    ],
    [
        1.0,
        4.2313330701600911252e+1,
        6.8718700749205790830e+2,
        5.3941960214247511077e+3,
        2.1213794301586595867e+4,
        3.9307895800092710610e+4,
        2.8729085735721942674e+4,
        5.2264952788528545610e+3,
    ],
);

#[expect(clippy::excessive_precision, reason = "digits as printed in AS 241")]
const NEAR: Rational = Rational(
    [
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ],
    [
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ],
);

#[expect(clippy::excessive_precision, reason = "digits as printed in AS 241")]
const FAR: Rational = Rational(
    [
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ],
    [
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ],
);

impl Rational {
    fn at(&self, x: f64) -> f64 {
        let horner = |coefficients: &[f64; 8]| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
        horner(&self.0) / horner(&self.1)
    }
}

/// P(Z <= x); SciPy's `ndtr`.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// The x with P(Z <= x) = p; SciPy's `ndtri`. -inf at 0, inf at 1, NaN outside.
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let q = p - 0.5;
    if q.abs() <= CENTRAL {
        return q * CENTRE.at(CENTRAL_SQUARED - q * q);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail == 0.0 {
        return f64::INFINITY.copysign(q);
    }
    let r = (-tail.ln()).sqrt();
    let x = if r <= FAR_TAIL { NEAR.at(r - NEAR_TAIL_ORIGIN) } else { FAR.at(r - FAR_TAIL) };
    x.copysign(q)
}

#[cfg(test)]
mod tests {
    use super::*;

    // from scipy.special import ndtr, ndtri                                     # SciPy 1.17.1
    // for x in (-37.0, -9.5, …, 8.2): print(f"({x!r}, {float(ndtr(x))!r}),")
    // for p in (1e-300, 1e-20, …, 1 - 2**-53): print(f"({p!r}, {float(ndtri(p))!r}),")
    const NDTR: [(f64, f64); 10] = [
        (-37.0, 5.7255712225239266e-300),
        (-9.5, 1.0494515075362604e-21),
        (-5.0, 2.866515718791933e-07),
        (-1.96, 0.024997895148220435),
        (-0.3, 0.3820885778110474),
        (0.0, 0.5),
        (1e-09, 0.5000000003989423),
        (0.7, 0.758036347776927),
        (3.0, 0.9986501019683699),
        (8.2, 0.9999999999999999),
    ];
    const NDTRI: [(f64, f64); 13] = [
        (1e-300, -37.0470962993612),
        (1e-20, -9.262340089798409),
        (5e-05, -3.890591886413094),
        (0.001, -3.090232306167813),
        (0.025, -1.9599639845400545),
        (0.074, -1.4466320671589785),
        (0.3, -0.5244005127080409),
        (0.5, 0.0),
        (0.500001, 2.5066282747057052e-06),
        (0.9, 1.2815515655446004),
        (0.975, 1.959963984540054),
        (0.99995, 3.8905918864131204),
        (0.9999999999999999, 8.209536151601387),
    ];

    fn assert_close(got: f64, want: f64, relative: f64) {
        assert!((got - want).abs() <= relative * want.abs(), "{got:e} is not {want:e}");
    }

    #[test]
    fn cdf_is_that_of_scipy() {
        for (x, want) in NDTR {
            // The rounding of x/sqrt(2) alone changes the lower tail by x^2 * 1e-16, relatively,
            // here and in SciPy.
            assert_close(normal_cdf(x), want, 4e-16 * (1.0 + x * x));
        }
    }

    #[test]
    fn quantile_is_that_of_scipy() {
        for (p, want) in NDTRI {
            assert_close(normal_quantile(p), want, 1e-15);
        }
    }

    #[test]
    fn quantile_inverts_the_cdf() {
        for step in -600..=600 {
            let x = f64::from(step) / 100.0;
            let back = normal_quantile(normal_cdf(x));
            // Near 1 the probability itself has lost digits: dx = eps / density.
            let lost = f64::EPSILON / ((-x * x / 2.0).exp() * 0.3989);
            assert!((back - x).abs() <= 4e-15 * (1.0 + x.abs()) + lost, "{x}: {back}");
        }
    }

    #[test]
    fn ends_and_outside() {
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        assert!(normal_quantile(-0.1).is_nan() && normal_quantile(1.1).is_nan() && normal_quantile(f64::NAN).is_nan());
        assert_eq!((normal_cdf(f64::NEG_INFINITY), normal_cdf(f64::INFINITY)), (0.0, 1.0));
    }
}
