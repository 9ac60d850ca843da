//! Tests of the life of a machine that does not do as it should.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::id::ProviderId;
use super::super::provider::SshAddress;
use super::*;
use crate::remote::{Listener, Machine};

#[test]
fn names_are_ours_unique_and_short() {
    let name = unique_name("Sweep 2026-11-23T10:00:00.123456789+00:00 of all the models");
    assert!(name.starts_with(PREFIX) && name.len() <= 60, "{name}");
    assert_ne!(unique_name("a"), unique_name("a"));
}

/// A machine that runs and is reached, and then answers no command.
struct Mute;

impl Machine for Mute {
    fn name(&self) -> String {
        "mute".to_string()
    }

    fn run(&self, _: &str, _: &mut (dyn Read + Send), _: &mut Listener) -> Result<i32> {
        loop {
            std::thread::park();
        }
    }

    fn open(&self, _: &str) -> Result<UnixStream> {
        unreachable!("nothing is opened before the first command is answered")
    }
}

/// Its provider: the machine is there until it is terminated.
#[derive(Default)]
struct OneMachine(Mutex<Option<String>>);

impl OneMachine {
    fn described(&self) -> Option<Description> {
        let name = self.0.lock().unwrap().clone()?;
        Some(Description {
            id: "7".to_string(),
            name,
            state: State::Running,
            gpu: String::new(),
            price: 0.0,
            ssh: None,
            created: String::new(),
            why: String::new(),
        })
    }
}

impl Provider for OneMachine {
    fn id(&self) -> &ProviderId {
        &ProviderId::RunPod
    }

    fn offers(&self, _: &Want) -> Result<Vec<Offer>> {
        let text = String::new;
        let (provider, gpu, cloud, stock) = (ProviderId::RunPod, text(), text(), text());
        Ok(vec![Offer { provider, gpu, gpu_count: 0, vram_gb: 0.0, cloud, price: 0.0, stock }])
    }

    fn create(&self, name: &str, _: &Offer, _: &Want, _: &str) -> Result<Description> {
        *self.0.lock().unwrap() = Some(name.to_string());
        Ok(self.described().unwrap())
    }

    fn describe(&self, _: &str) -> Result<Option<Description>> {
        Ok(self.described())
    }

    fn list(&self) -> Result<Vec<Description>> {
        Ok(self.described().into_iter().collect())
    }

    fn terminate(&self, _: &str) -> Result<()> {
        *self.0.lock().unwrap() = None;
        Ok(())
    }

    fn logs(&self, _: &str) -> Result<String> {
        Ok(String::new())
    }

    fn reach(&self, _: &Description, _: &Path) -> Result<Option<Reached>> {
        Ok(Some(Reached { machine: Arc::new(Mute), ssh: None, fingerprints: Vec::new() }))
    }

    fn again(&self, _: &SshAddress, _: &Path, _: &[String]) -> Result<Arc<dyn Machine>> {
        Ok(Arc::new(Mute))
    }

    fn give_back_command(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn a_machine_that_answers_no_command_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("gpus.sqlite")).unwrap();
    let poll = Duration::from_millis(10);
    let patience = Patience { poll, reach: Duration::from_millis(50), hosts: 1, ..Patience::default() };
    let purpose = Purpose { run: "run".to_string(), task: None, key_file: Default::default(), keep_running: false };
    let provider = OneMachine::default();
    let (public_key, progress) = ("", &crate::progress::Silent);
    let renting =
        Renting { provider: &provider, ledger: &ledger, patience: &patience, purpose: &purpose, public_key, progress };
    let error = renting.rent(&Want::default()).map(|rented| rented.name).unwrap_err();
    assert_eq!(error.kind, Kind::Lost);
    assert!(error.message.contains("mute: a first command has not ended within"), "{}", error.message);
    assert!(provider.described().is_none() && ledger.open_entries().unwrap().is_empty());
}
