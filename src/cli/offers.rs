//! `outlier offers`: what could be rented.

use clap::Args;

use super::table::{dollars, print_table};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::gpu::{self, Want};

#[derive(Args)]
pub(super) struct Offers {
    #[arg(long, default_value = "runpod")]
    provider: String,
    /// Names or parts of names, such as A100; any GPU where none is given.
    #[arg(long)]
    gpu: Vec<String>,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    gpu_count: u32,
    /// GB per GPU, at least.
    #[arg(long, value_parser = positive)]
    min_vram_gb: Option<f64>,
    /// CUDA version that the host must support, such as 12.8.
    #[arg(long)]
    min_cuda: Option<String>,
    /// USD per hour for all GPUs together, at most.
    #[arg(long, value_parser = positive)]
    max_price: Option<f64>,
    /// secure, community or any.
    #[arg(long)]
    cloud: Option<String>,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| *value > 0.0 && value.is_finite());
    value.ok_or_else(|| "expected a number above 0".to_string())
}

pub(super) fn offers(asked: &Offers) -> Result<Exit> {
    let want = Want {
        gpus: asked.gpu.clone(),
        gpu_count: asked.gpu_count as usize,
        min_vram_gb: asked.min_vram_gb,
        min_cuda: asked.min_cuda.clone(),
        cloud: asked.cloud.clone(),
        max_price: asked.max_price,
        ..Want::default()
    };
    let offers = gpu::provider(&asked.provider.parse()?)?.offers(&want)?;
    if offers.is_empty() {
        return Err(Error::new(Kind::NoCapacity, "nothing on offer fits").hint("ask for less, or for another cloud"));
    }
    let row = |offer: &gpu::Offer| {
        vec![
            offer.gpu.clone(),
            offer.gpu_count.to_string(),
            format!("{:.0}", offer.vram_gb),
            offer.cloud.clone(),
            dollars(offer.price),
            offer.stock.clone(),
        ]
    };
    print_table(&["gpu", "count", "GB each", "cloud", "$/h in all", "stock"], offers.iter().map(row).collect());
    Ok(Exit::Done)
}
