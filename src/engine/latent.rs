//! Multi-head latent attention: queries, keys and values are computed from low-rank vectors.
//! DeepSeek-AI 2024, "DeepSeek-V2".
//!
//! A head of q and k has a part with rotary embedding and one without. Here the rotary part comes
//! first, as in all other heads. Products of q and k are the same in either order.

use super::linear::{linear, norm};
use crate::error::Result;
use crate::spec::{Attention, Latent, LatentQuery};
use crate::tensor::Tensor;
use crate::vocabulary::Pairs;

/// q and k [rows, heads * head_dim] and v [rows, heads * value_dim] of `x` [rows, hidden].
pub(super) fn projections(
    spec: &Attention<Tensor>,
    latent: &Latent<Tensor>,
    x: &Tensor,
    rounded: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let q = queries(spec, latent, x, rounded)?;
    let (k, v) = keys_and_values(spec, latent, x, rounded)?;
    Ok((q, k, v))
}

fn queries(spec: &Attention<Tensor>, latent: &Latent<Tensor>, x: &Tensor, rounded: bool) -> Result<Tensor> {
    let (rows, heads, head_dim, nope) = (x.dims()[0], spec.heads, spec.head_dim, latent.nope_dim);
    let q = match &latent.query {
        LatentQuery::Direct(q) => linear(q, x, rounded)?,
        LatentQuery::Low { down, norm: of, up } => linear(up, &norm(of, &linear(down, x, rounded)?)?, rounded)?,
    };
    let q = q.reshape((rows, heads, head_dim))?;
    let turning = q.columns(nope, head_dim - nope)?;
    turning.concat_columns(&q.columns(0, nope)?)?.reshape((rows, heads * head_dim))
}

fn keys_and_values(
    spec: &Attention<Tensor>,
    latent: &Latent<Tensor>,
    x: &Tensor,
    rounded: bool,
) -> Result<(Tensor, Tensor)> {
    let (rows, heads, nope, value) = (x.dims()[0], spec.heads, latent.nope_dim, spec.value_dim);
    let rope = spec.head_dim - nope;
    let down = linear(&latent.kv_down, x, rounded)?;
    let rank = down.dims()[1] - rope;
    let turning = down.columns(rank, rope)?;
    let up = linear(&latent.kv_up, &norm(&latent.kv_norm, &down.columns(0, rank)?)?, rounded)?.reshape((
        rows,
        heads,
        nope + value,
    ))?;
    let v = up.columns(nope, value)?.reshape((rows, heads * value))?;
    let still = up.columns(0, nope)?;
    // What is not needed any more is as large as keys and values together.
    drop((down, up));
    let k = turning.repeat_for_heads(heads)?.concat_columns(&still)?.reshape((rows, heads * spec.head_dim))?;
    Ok((k, v))
}

/// Queries or keys [rows, heads * head_dim] with the part without positions before the rotated
/// one, whose pairs are apart as transformers has them: first all first halves.
pub(super) fn in_order(spec: &Attention<Tensor>, latent: &Latent<Tensor>, x: &Tensor) -> Result<Tensor> {
    let (head_dim, rope) = (spec.head_dim, spec.head_dim - latent.nope_dim);
    let adjacent = spec.rope.as_ref().is_some_and(|rope| rope.pairs == Pairs::Adjacent);
    let mut order: Vec<usize> = (rope..head_dim).collect();
    match adjacent {
        true => order.extend((0..rope).step_by(2).chain((1..rope).step_by(2))),
        false => order.extend(0..rope),
    }
    let values = x.values()?;
    let ordered = values.chunks_exact(head_dim).flat_map(|head| order.iter().map(|i| head[*i])).collect();
    Tensor::from_vec(ordered, x.dims2()?, &x.device())
}

/// The largest numbers of values, for each row, that exist at once in `projections` beside x: while
/// a product is computed, and otherwise.
pub(super) fn values_at_once(spec: &Attention, latent: &Latent) -> [usize; 2] {
    let (heads, rope) = (spec.heads, spec.head_dim - latent.nope_dim);
    let (q, v, nope) = (heads * spec.head_dim, heads * spec.value_dim, heads * latent.nope_dim);
    let low = match &latent.query {
        LatentQuery::Direct(_) => 0,
        LatentQuery::Low { down, .. } => down.weight.shape[0],
    };
    let down = latent.kv_down.weight.shape[0];
    // The latent of the queries, its norm, and the queries.
    let query = 2 * low + q;
    // The queries, the latent of keys and values, its parts, its norm, and keys and values.
    let keys_and_values = q + down + rope + 2 * (down - rope) + nope + v;
    // The queries, their two parts, and the parts in the other order.
    let reordered = 3 * q;
    // Keys and values together, and each by itself.
    let separated = q + down + rope + 2 * (nope + v);
    // The parts of the keys, repeated and then side by side.
    let joined = q + rope + v + q + q;
    [query.max(keys_and_values), reordered.max(separated).max(joined)]
}
