//! Gates of the delta rule: the decay of the state at each position, and the step size of its
//! update.

/// Positions per chunk of the delta rule (the reference's `chunk_size`).
pub(crate) const CHUNK: usize = 64;

/// Above this threshold ln(1 + exp(x)) equals x in f32 (the reference's `softplus`).
const SOFTPLUS_LINEAR: f32 = 20.0;

pub(crate) struct Gates {
    /// Cumulative sum of the log decays since the start of the chunk, [sequences, heads,
    /// positions].
    pub log_decay: Vec<f32>,
    /// Step size of the update of the state, [sequences, heads, positions].
    pub beta: Vec<f32>,
}

impl Gates {
    /// `ba` [sequences * positions, key_heads * (b of the group | a of the group)], `a_log` and
    /// `dt_bias` [heads].
    pub(crate) fn new(
        heads: usize,
        group: usize,
        positions: usize,
        ba: &[f32],
        a_log: &[f32],
        dt_bias: &[f32],
    ) -> Self {
        let sequences = ba.len() / (2 * heads * positions);
        let (mut log_decay, mut beta) = (Vec::with_capacity(ba.len() / 2), Vec::with_capacity(ba.len() / 2));
        for (s, head) in (0..sequences).flat_map(|s| (0..heads).map(move |head| (s, head))) {
            let column = head / group * 2 * group + head % group;
            let mut sum = 0.0;
            for t in 0..positions {
                let row = &ba[(s * positions + t) * 2 * heads..][..2 * heads];
                beta.push(1.0 / (1.0 + (-row[column]).exp()));
                let decay = -a_log[head].exp() * softplus(row[column + group] + dt_bias[head]);
                sum = if t % CHUNK == 0 { decay } else { sum + decay };
                log_decay.push(sum);
            }
        }
        Self { log_decay, beta }
    }
}

fn softplus(x: f32) -> f32 {
    if x > SOFTPLUS_LINEAR { x } else { x.exp().ln_1p() }
}
