//! What a machine is called, whose it is and what it costs.

/// What a machine is called and what it costs.
#[derive(Clone, Debug)]
pub struct Label {
    /// Unique; also names the folder of the worker.
    pub name: String,
    /// The provider's id, or the name where the provider has none.
    pub id: String,
    pub provider: String,
    pub gpu: String,
    /// USD per hour.
    pub price: f64,
    /// USD that it may cost in all.
    pub max_cost: Option<f64>,
    pub keep_running: bool,
    /// Seconds since 1970, from when it is charged.
    pub since: f64,
}

/// The provider of machines that the user has.
pub const OWN: &str = "ssh";

impl Label {
    /// Whether it is a machine that the user has, of which only the worker begins and ends.
    pub fn is_own(&self) -> bool {
        self.provider == OWN
    }
}
