//! Whether a GPU computes where a worker is: the worker says it with its first words, and whoever rented the machine hears it before
//! anything is entrusted to it.

use serde::{Deserialize, Serialize};

use super::label::Label;
use crate::cuda;
use crate::error::{Error, Kind, Result};
use crate::plain::plain;
use crate::progress::{Event, Progress};

/// Characters of what a machine says of its driver.
const SAID: usize = 400;

/// Why no GPU computes on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoGpu {
    /// NVIDIA's driver is there all the same.
    pub driver: bool,
    pub error: Error,
}

impl NoGpu {
    /// Of this machine; None where a GPU computes.
    pub fn here() -> Option<Self> {
        let error = cuda::all().err()?;
        Some(Self { driver: cuda::has_driver(), error })
    }

    /// What it means to whoever wants to work on the machine: device "auto" is its processor, which is told. A machine that costs
    /// money, and whose driver is there, costs it for a GPU.
    ///
    /// # Errors
    /// `unsupported` where money would be spent on a GPU that does not compute.
    pub fn on(&self, label: &Label, machine: &str, progress: &dyn Progress) -> Result<()> {
        let problem = plain(&self.error.message, SAID);
        let hint = plain(self.error.hint.as_deref().unwrap_or("`outlier doctor` there says more"), SAID);
        if self.driver && label.price > 0.0 {
            return Err(Error::new(Kind::Unsupported, format!("{machine}: no GPU computes there: {problem}")).hint(format!(
                "leave `image` out, whose default has all that is needed, or take another machine; on this one: {hint}"
            )));
        }
        let hint = if self.driver { format!("; {hint}") } else { String::new() };
        progress.event(Event::Warning(format!("{machine}: device \"auto\": the CPU computes; {problem}{hint}")));
        Ok(())
    }
}
