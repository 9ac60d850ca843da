//! Functions for `benches/`: single operations on generated values, and runs without one of their
//! parts. They are not an interface for users.

use half::bf16;

use super::extract::{Mode, extract_as};
use super::observe::{LadderFold, Observer};
use super::pass::ReadAhead;
use crate::error::Result;
use crate::formats::mxfp4::{BLOCK_BYTES, dequantise};
use crate::ops::{self, Attend, FeedForward, Projection};
use crate::progress::Progress;
use crate::record::{Activations, DEFAULT_LADDER, ExtractArgs, Site, SiteId, Tokens};
use crate::tensor::{Device, Tensor};
use crate::vocabulary::{Activation, Order, Span};
use crate::weights::OpenModel;

/// Options of a benchmarked run.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// True if all weights are loaded before the clock starts.
    pub preload: bool,
    /// True if statistics of the norm outputs are computed.
    pub fold: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self { preload: false, fold: true }
    }
}

/// An extraction with these options.
pub fn extract_with(
    model: &OpenModel,
    tokens: &Tokens,
    args: &ExtractArgs,
    progress: &dyn Progress,
    probe: Probe,
) -> Result<Activations> {
    let ahead = if probe.preload { ReadAhead::Everything } else { ReadAhead::Bounded };
    extract_as(model, tokens, args, progress, Mode { ahead, fold: probe.fold })
}

/// An operation to time.
pub type Work = Box<dyn FnMut()>;

/// Uniform numbers between -0.5 and 0.5.
fn noise(count: usize) -> Vec<f32> {
    uniform().take(count).collect()
}

fn uniform() -> impl Iterator<Item = f32> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    })
}

fn tensor(shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(noise(shape.iter().product()), shape, &Device::Cpu)
}

fn weight(out: usize, input: usize) -> Result<Tensor> {
    let values: Vec<bf16> = noise(out * input).into_iter().map(bf16::from_f32).collect();
    Tensor::from_vec(values, (out, input), &Device::Cpu)
}

/// `rows` tokens through one gated expert in bf16, gathered from and added to a tensor with four
/// times as many rows. `rounded` as in the compute dtype bf16.
pub fn expert(rows: usize, hidden: usize, inner: usize, rounded: bool) -> Result<Work> {
    let (x, residual) = (tensor(&[4 * rows, hidden])?, tensor(&[4 * rows, hidden])?);
    let (gate, up, down) = (weight(inner, hidden)?, weight(inner, hidden)?, weight(hidden, inner)?);
    let chosen: Vec<u32> = (0..rows as u32).map(|row| 4 * row).collect();
    let (weights, scratch) = (vec![0.125; rows], ops::ExpertScratch::default());
    Ok(Box::new(move || {
        fn projection(weight: &Tensor) -> Projection<'_> {
            Projection { weight, order: Order::OutIn, bias: None }
        }
        let (gate, up, down) = (Some(projection(&gate)), projection(&up), projection(&down));
        let network = FeedForward { gate, up, down, activation: Activation::Silu, on_input: false, rounded };
        ops::add_expert(&residual, &x, &network, (&chosen, &weights), &scratch, false).expect("sizes fit");
    }))
}

/// Causal attention of one sequence.
pub fn attention(
    positions: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    rounded: bool,
) -> Result<Work> {
    let q = tensor(&[positions, heads * head_dim])?;
    let (k, v) = (tensor(&[positions, kv_heads * head_dim])?, tensor(&[positions, kv_heads * head_dim])?);
    let op = Attend {
        positions,
        heads,
        kv_heads,
        head_dim,
        value_dim: head_dim,
        span: window.map_or(Span::All, Span::Window),
        scale: 0.125,
        softcap: None,
        alibi: None,
        rounded,
    };
    Ok(Box::new(move || {
        ops::attend(&q, &k, &v, None, op).expect("sizes fit");
    }))
}

/// The gated delta rule of one sequence, with key and value heads of size `dim`.
pub fn delta_rule(positions: usize, heads: usize, dim: usize) -> Result<Work> {
    let of = || tensor(&[heads, positions, dim]);
    let (q, k, v) = (of()?, of()?, of()?);
    let (beta_and_decay, per_head) = (tensor(&[positions, 2 * heads])?, tensor(&[heads])?);
    Ok(Box::new(move || {
        let (a_log, dt_bias) = (&per_head, &per_head);
        let net = ops::DeltaNet { positions, heads, group: 1, beta_and_decay: &beta_and_decay, a_log, dt_bias };
        ops::delta_rule(&q, &k, &v, &net).expect("sizes fit");
    }))
}

/// Dequantises MXFP4 to bf16 on one thread, as a reading thread does.
pub fn mxfp4(blocks: usize) -> Work {
    let codes: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|i| (i * 37) as u8).collect();
    let scales: Vec<u8> = (0..blocks).map(|i| 120 + (i % 8) as u8).collect();
    Box::new(move || {
        std::hint::black_box(dequantise(&codes, &scales));
    })
}

/// The ladder fold of one norm output of some sequences.
pub fn fold(sequences: usize, positions: usize, hidden: usize) -> Result<Work> {
    // The values are nearly normal with standard deviation 1, like norm outputs: most rows have a
    // value on the ladder.
    let mut uniform = uniform();
    let values = (0..sequences * positions * hidden).map(|_| uniform.by_ref().take(12).sum::<f32>()).collect();
    let x = Tensor::from_vec(values, (sequences * positions, hidden), &Device::Cpu)?;
    let norm = SiteId { layer: 0, site: Site::AttnIn };
    let mut fold = LadderFold::new(&DEFAULT_LADDER, &[norm], sequences, positions, hidden);
    Ok(Box::new(move || fold.observe(norm, 0..sequences, &x).expect("values in CPU memory")))
}
