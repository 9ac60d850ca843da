//! What a machine is to its user, and everything that follows from it: how it is listed, when it
//! ends, and what is said of it.

use super::failure::Failure;

/// How the user has a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// It is a provider's, which lists it and charges for it until it is given back.
    Rented,
    /// It is the user's own. Only a worker begins and ends there, and the machine may be switched
    /// off meanwhile.
    Own,
}

impl Tenure {
    /// True if its provider has an account for it, and is asked at the end of a run what is alive.
    pub fn is_listed(self) -> bool {
        match self {
            Self::Rented => true,
            Self::Own => false,
        }
    }

    /// True if nothing is lost when it cannot be reached: it costs nothing then.
    pub fn may_be_out_of_reach(self) -> bool {
        match self {
            Self::Rented => false,
            Self::Own => true,
        }
    }

    /// True if it has ended when it is not found. A provider's list may lag behind.
    pub fn absence_is_final(self) -> bool {
        match self {
            Self::Rented => false,
            Self::Own => true,
        }
    }

    /// The id or name under which it is found: a worker has its name, and a rented machine the id
    /// that its provider has given it.
    pub fn known_as<'a>(self, name: &'a str, id: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Rented => id,
            Self::Own => Some(name),
        }
    }

    /// The time at which it ends itself, if that is known. `until` is what the ledger has: for a
    /// rented machine, the end of its costs.
    pub fn ends_at(self, until: Option<f64>) -> Option<f64> {
        match self {
            Self::Rented => None,
            Self::Own => until,
        }
    }

    /// The options of `outlier worker attach` there.
    pub fn attach_options(self) -> &'static str {
        match self {
            Self::Rented => "",
            Self::Own => " --tidy",
        }
    }

    /// In words, how long it stays without a lease; `hours` are left until its time limit.
    pub fn stays(self, hours: f64) -> String {
        match self {
            Self::Rented => "it stays until it is terminated".to_string(),
            Self::Own => format!("it ends itself {hours:.1} h from now"),
        }
    }

    /// What a machine is called that outlives its run, and what is said of it.
    pub fn left_running<'a>(self, name: &'a str, id: &'a str, gpu: &str, price: f64, cost: f64) -> (&'a str, String) {
        match self {
            Self::Rented => (id, format!("{id} ({gpu}) is left running: ${price:.2}/h, ${cost:.2} so far")),
            // The machine itself stays, and a worker of this name is on it.
            Self::Own => (name, format!("{id} is left at work as {name}")),
        }
    }

    /// In words, that a machine which a dead run has left behind is ended.
    pub fn reaped(self, name: &str, id: Option<&str>, gpu: &str, cost: f64) -> String {
        match self {
            Self::Rented => format!("{name} ({gpu}) was left over by a run that died: given back, ${cost:.2}"),
            Self::Own => {
                format!("{name} on {} was left at work by a run that died: ended", id.unwrap_or_default())
            }
        }
    }

    /// In words, that a machine is ended; `given_back` says it of a rented one.
    pub fn ended(self, name: &str, id: Option<&str>, given_back: String) -> String {
        match self {
            Self::Rented => given_back,
            Self::Own => format!("the worker {name} on {} has ended", id.unwrap_or_default()),
        }
    }

    /// The failure to end a machine, with the reason.
    pub(super) fn not_ended(self, name: &str, id: Option<&str>, price: f64, reason: String) -> Failure {
        match self {
            Self::Rented => Failure::MayBeRunning { id: id.unwrap_or(name).to_string(), costs: price > 0.0, reason },
            Self::Own => Failure::MayBeAtWork { worker: name.to_string(), reason },
        }
    }
}
