//! Observers: during a pass they receive the tensors at sites and compute results from them.
//!
//! A site that no observer wants costs nothing. To measure something new, write an observer. To
//! make a new site available, pass its tensor to `show` where it is computed (`pass/layer.rs`).

mod attention_sinks;
mod attribution;
mod experts;
mod full;
mod hits;
mod ladder;
mod massive;
mod median;
mod memory;
mod moments;
mod observer;
mod quantiles;
mod quantisation;
mod stored;
mod super_weights;
mod top;
mod weights;

pub use attention_sinks::AttentionSinksObserver;
pub use attribution::AttributionObserver;
pub use experts::ExpertsObserver;
pub use full::FullWriter;
pub use hits::{HitSite, HitsObserver};
pub use ladder::{LadderFold, PENDING_BYTES, record_bytes};
pub use massive::MassiveObserver;
pub use memory::bytes as observer_bytes;
pub use moments::MomentsObserver;
pub use observer::{ExpertRows, Observer, Observers, Onlookers, State};
pub use quantiles::QuantilesObserver;
pub use quantisation::QuantisationObserver;
pub(super) use stored::{read as read_state, write as write_state};
pub use super_weights::{Meeting, SuperWeightsObserver};
pub use top::TopObserver;
pub use weights::WeightsObserver;
