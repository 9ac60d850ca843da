//! The machines of a run, and the providers that it has asked for them.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::gpu::{Provider, ProviderId};
use crate::session::lent::Lent;

#[derive(Default)]
pub(super) struct Registry {
    machines: Mutex<Vec<Arc<Lent>>>,
    providers: Mutex<Vec<Arc<dyn Provider>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

impl Registry {
    pub(super) fn add(&self, machine: Arc<Lent>) {
        locked(&self.machines).push(machine);
    }

    /// All machines so far, with those that have ended.
    pub(super) fn machines(&self) -> Vec<Arc<Lent>> {
        locked(&self.machines).clone()
    }

    /// Forgets the machines that no provider lists.
    pub(super) fn forget_unlisted(&self) {
        locked(&self.machines).retain(|machine| machine.label.tenure().is_listed());
    }

    /// Forgets all machines and providers.
    pub(super) fn forget(&self) {
        locked(&self.machines).clear();
        locked(&self.providers).clear();
    }

    /// Adds a provider. If it is new, `begin` runs first, and other threads that want to use a
    /// provider wait for it.
    pub(super) fn first_use(&self, provider: &Arc<dyn Provider>, begin: impl FnOnce()) {
        let mut providers = locked(&self.providers);
        if providers.iter().all(|known| known.id() != provider.id()) {
            begin();
            providers.push(provider.clone());
        }
    }

    pub(super) fn providers(&self) -> Vec<Arc<dyn Provider>> {
        locked(&self.providers).clone()
    }

    pub(super) fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        locked(&self.providers).iter().find(|provider| provider.id() == id).cloned()
    }
}
