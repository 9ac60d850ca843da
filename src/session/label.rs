//! Identity and price of a machine.

use crate::gpu::{ProviderId, Tenure};

/// Identity and price of a machine.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its unique name, which is also the name of the worker's folder.
    pub name: String,
    /// The provider's id, or the name if the provider has none.
    pub id: String,
    pub provider: ProviderId,
    pub gpu: String,
    /// USD per hour.
    pub price: f64,
    /// The most that it may cost in total, in USD.
    pub max_cost: Option<f64>,
    pub keep_running: bool,
    /// Start of the charges, in seconds since 1970.
    pub since: f64,
}

impl Label {
    /// What the machine is to its user.
    pub fn tenure(&self) -> Tenure {
        self.provider.tenure()
    }
}
