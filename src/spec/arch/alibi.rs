//! Slopes of linear biases on scores (ALiBi, Press et al. 2022): powers of two if the number of
//! heads is one.

/// The slopes of BLOOM and Falcon: those of the largest power of two within `heads`, then every
/// other slope of twice as many heads.
pub(super) fn slopes(heads: usize) -> Vec<f32> {
    let whole = 1 << heads.ilog2();
    let rest = geometric(2 * whole).step_by(2);
    geometric(whole).chain(rest).take(heads).collect()
}

/// The slopes of MPT, from the next power of two: every other one from the second on, then those
/// between.
pub(super) fn mpt_slopes(heads: usize) -> Vec<f32> {
    let whole = heads.next_power_of_two();
    if whole == heads {
        return geometric(heads).collect();
    }
    geometric(whole).skip(1).step_by(2).chain(geometric(whole).step_by(2)).take(heads).collect()
}

/// 2^(-8 i / heads) for i from 1 to `heads`.
fn geometric(heads: usize) -> impl Iterator<Item = f32> {
    (1..=heads).map(move |i| (-8.0 * i as f64 / heads as f64).exp2() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are those of `build_alibi_tensor` of modeling_bloom and of
    /// `build_mpt_alibi_tensor` of modeling_mpt.
    #[test]
    fn heads_beyond_a_power_of_two_have_slopes_between() {
        let eighth = |power: f64| (-power).exp2() as f32;
        assert_eq!(slopes(4), [2.0, 4.0, 6.0, 8.0].map(eighth));
        assert_eq!(slopes(6), [2.0, 4.0, 6.0, 8.0, 1.0, 3.0].map(eighth));
        assert_eq!(mpt_slopes(4), [2.0, 4.0, 6.0, 8.0].map(eighth));
        assert_eq!(mpt_slopes(6), [2.0, 4.0, 6.0, 8.0, 1.0, 3.0].map(eighth));
        assert_eq!(mpt_slopes(7), [2.0, 4.0, 6.0, 8.0, 1.0, 3.0, 5.0].map(eighth));
    }
}
