//! Rotary position embedding in place. `spec::rope` describes it.

use rayon::prelude::*;

use super::pieces::PIECE;
use crate::vector::vectorised;
use crate::vocabulary::Pairs;

/// Rotates `x` [sequences, positions, heads, head_dim] by the angles of the tables [positions, dim
/// / 2].
pub(crate) fn rotate(
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    pairs: Pairs,
    (positions, heads, head_dim): (usize, usize, usize),
) {
    let half = cos.len() / positions;
    let row = heads * head_dim;
    x.par_chunks_exact_mut(row).enumerate().with_min_len(PIECE / row + 1).for_each(|(token, row)| {
        let t = token % positions;
        let (cos, sin) = (&cos[t * half..][..half], &sin[t * half..][..half]);
        vectorised!(|| {
            for head in row.chunks_exact_mut(head_dim) {
                match pairs {
                    Pairs::Halves => {
                        let (low, high) = head[..2 * half].split_at_mut(half);
                        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                            (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
                        }
                    }
                    Pairs::Adjacent => {
                        let pairs = head[..2 * half].as_chunks_mut::<2>().0;
                        for (([low, high], cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
                            (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
                        }
                    }
                }
            }
        });
    });
}
