//! Multi-head latent attention: queries, keys and values are computed from low-rank vectors.
//! DeepSeek-AI 2024, "DeepSeek-V2".
//!
//! A head of q and k has a part with rotary embedding and one without. Here the rotary part comes
//! first, as in all other heads. Products of q and k are the same in either order.

use super::linear::{linear, norm};
use crate::error::Result;
use crate::spec::{Attention, Latent, LatentQuery};
use crate::tensor::Tensor;

/// q and k [rows, heads * head_dim] and v [rows, heads * value_dim] of `x` [rows, hidden].
pub(super) fn projections(
    spec: &Attention<Tensor>,
    latent: &Latent<Tensor>,
    x: &Tensor,
    rounded: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (rows, heads) = (x.dims()[0], spec.heads);
    let (nope, rope) = (latent.nope_dim, spec.head_dim - latent.nope_dim);
    let q = match &latent.query {
        LatentQuery::Direct(q) => linear(q, x, rounded)?,
        LatentQuery::Low { down, norm: of, up } => linear(up, &norm(of, &linear(down, x, rounded)?)?, rounded)?,
    };
    let q = q.reshape((rows, heads, nope + rope))?;
    let q = q.columns(nope, rope)?.concat_columns(&q.columns(0, nope)?)?.reshape((rows, heads * (nope + rope)))?;
    let down = linear(&latent.kv_down, x, rounded)?;
    let rank = down.dims()[1] - rope;
    let turning = down.columns(rank, rope)?;
    let up = linear(&latent.kv_up, &norm(&latent.kv_norm, &down.columns(0, rank)?)?, rounded)?;
    let up = up.reshape((rows, heads, nope + spec.value_dim))?;
    let k = turning
        .repeat_for_heads(heads)?
        .concat_columns(&up.columns(0, nope)?)?
        .reshape((rows, heads * (nope + rope)))?;
    let v = up.columns(nope, spec.value_dim)?.reshape((rows, heads * spec.value_dim))?;
    Ok((q, k, v))
}
