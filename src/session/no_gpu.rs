//! Whether a GPU computes on a worker's machine: the worker's first answer says it, before the
//! machine gets any work.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::label::Label;
use crate::cuda;
use crate::error::{Error, Result};
use crate::plain::plain;
use crate::progress::{Event, Progress};

/// The largest number of characters of a machine's message about its driver.
const SAID: usize = 400;

/// The reason why no GPU computes on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoGpu {
    /// True if NVIDIA's driver is installed all the same.
    pub driver: bool,
    pub error: Error,
}

impl NoGpu {
    /// The reason on this machine; None if a GPU computes.
    pub fn here() -> Option<Self> {
        let error = cuda::all().err()?;
        Some(Self { driver: cuda::has_driver(), error })
    }

    /// The consequence for work on the machine: device "auto" is its CPU, which is reported. A
    /// machine with a driver that costs money is paid for its GPU.
    ///
    /// # Errors
    /// `unsupported` if money would be spent on a GPU that does not compute.
    pub fn on(&self, label: &Label, machine: &str, progress: &dyn Progress) -> Result<()> {
        let problem = plain(&self.error.message, SAID);
        let hint = plain(self.error.hint.as_deref().unwrap_or("`outlier doctor` there says more"), SAID);
        if self.driver && label.price > 0.0 {
            return Err(Error::of(Failure::NoGpu { machine: machine.to_string(), problem, hint }));
        }
        let hint = if self.driver { format!("; {hint}") } else { String::new() };
        progress.event(Event::Warning(format!("{machine}: device \"auto\": the CPU computes; {problem}{hint}")));
        Ok(())
    }
}
