//! One pod: a state that follows the clock, and behind it a real sshd.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{Blow, Fault};
use crate::sshd::Sshd;

/// When a pod gets how far: quicker than the real one, in the same order.
const STARTING: Duration = Duration::from_millis(60);
const RUNNING: Duration = Duration::from_millis(120);
/// The address is known a little after RUNNING, and sshd answers later still.
const ADDRESS: Duration = Duration::from_millis(180);
const SSHD: Duration = Duration::from_millis(240);

pub struct Pod {
    pub id: String,
    pub name: String,
    /// The key that the pod has for itself.
    pub key: String,
    pub fault: Option<Fault>,
    body: Map<String, Value>,
    price: f64,
    created: Instant,
    sshd: Option<Sshd>,
    up: bool,
    gone: bool,
}

impl Pod {
    pub fn create(
        number: usize,
        body: &Map<String, Value>,
        price: f64,
        fault: Option<Fault>,
        base: &str,
        of_image: &[(String, String)],
    ) -> Self {
        let id = format!("pod{number}x{:06x}", rand::random::<u32>() & 0xff_ffff);
        let key = format!("rpa_pod_{:032x}", rand::random::<u128>());
        let variable = |name: &str| body.get("env").and_then(|env| env[name].as_str()).unwrap_or_default().to_string();
        let own = [("RUNPOD_POD_ID", id.as_str()), ("RUNPOD_API_KEY", &key), ("OUTLIER_RUNPOD_URL", base)];
        let of_image = of_image.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<_> = own.into_iter().chain(of_image).collect();
        let sshd = Sshd::prepare(&variable("PUBLIC_KEY"), &environment);
        let name = body["name"].as_str().unwrap_or_default().to_string();
        let (body, sshd) = (body.clone(), Some(sshd));
        Self { id, name, key, fault, body, price, created: Instant::now(), sshd, up: false, gone: false }
    }

    pub fn share_programs(&self, folder: &Path) {
        let home = self.sshd.as_ref().map(Sshd::home).unwrap_or_default().join(".outlier");
        std::fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::symlink(folder, home.join("bin")).unwrap();
    }

    /// What a pod runs at its start, but for the image's own part, with its longest sleep made this short.
    pub fn run_start(&self, sleep: Duration) {
        let Some(command) = self.body.get("cmd").and_then(|cmd| cmd[2].as_str()) else { return };
        let quick = format!(
            "sleep() {{ case $1 in 2400) command sleep {};; *) command sleep 0.5;; esac; }}; ",
            sleep.as_secs_f64()
        );
        if let Some(sshd) = &self.sshd {
            sshd.runs(&format!("{quick}{}", command.replace("exec /start.sh", "wait")));
        }
    }

    pub fn strike(&self, blow: Blow) -> usize {
        let Some(sshd) = &self.sshd else { return 0 };
        let guardians = sshd.running("worker serve");
        let workers = Some(sshd.running("worker work")).filter(|found| !found.is_empty()).unwrap_or(guardians.clone());
        let signal = |name: &str, pids: &[u32]| {
            for pid in pids {
                let _ = Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
            }
            pids.len()
        };
        match blow {
            Blow::KillWorker => signal("-KILL", &workers),
            Blow::AbortWorker => signal("-ABRT", &workers),
            Blow::StopWorker => signal("-STOP", &workers),
            Blow::EndWorker => signal("-TERM", &workers),
            Blow::KillGuardian => signal("-KILL", &guardians),
            Blow::EndGuardian => signal("-TERM", &guardians),
            Blow::KillBoth => signal("-KILL", &[guardians, workers].concat()),
            Blow::StarveWorker => {
                for pid in &workers {
                    let limit = ["--as=1".to_string(), format!("--pid={pid}")];
                    let _ = Command::new("prlimit").args(limit).stderr(Stdio::null()).status();
                }
                workers.len()
            }
        }
    }

    fn age(&self) -> Duration {
        self.created.elapsed()
    }

    pub fn advance(&mut self) {
        if let Some(Fault::Vanishes(after)) = self.fault
            && self.age() > Duration::from_millis(after)
        {
            self.end();
        }
        let reachable = !matches!(self.fault, Some(Fault::Stuck | Fault::NeverReachable));
        if reachable && !self.up && self.age() > SSHD && !self.gone {
            self.up = true;
            self.reopen();
        }
    }

    pub fn is_gone(&self) -> bool {
        self.gone
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    pub fn is_listed(&self) -> bool {
        !matches!(self.fault, Some(Fault::ListedLate(after)) if self.age() < Duration::from_millis(after))
    }

    /// Everything in it ends, as when a container is removed.
    pub fn end(&mut self) {
        self.gone = true;
        self.sshd = None;
    }

    pub fn cut(&mut self) {
        self.sshd.iter_mut().for_each(Sshd::cut);
    }

    pub fn reopen(&mut self) {
        if self.up {
            self.sshd.iter_mut().for_each(Sshd::up);
        }
    }

    pub fn cost(&self) -> f64 {
        if self.gone { 0.0 } else { self.price * self.age().as_secs_f64() / 3600.0 }
    }

    pub fn processes(&self) -> Vec<String> {
        self.sshd.as_ref().map(Sshd::processes).unwrap_or_default()
    }

    pub fn log(&self, source: Option<&str>) -> Vec<String> {
        let mut lines = vec!["create container".to_string(), "start container".to_string()];
        if source == Some("container") && self.up {
            let line = self.sshd.as_ref().map(Sshd::fingerprint_line).unwrap_or_default();
            let told = match self.fault {
                Some(Fault::WrongHostKey) => {
                    "256 SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA root@pod (ED25519)".to_string()
                }
                _ => line,
            };
            lines = vec!["Setting up SSH".to_string(), told, "Start script finished".to_string()];
        }
        lines
    }

    pub fn json(&self) -> Value {
        let age = self.age();
        let status = match self.fault {
            Some(Fault::Stuck) => "PROVISIONING",
            _ if age < STARTING => "PROVISIONING",
            _ if age < RUNNING => "STARTING",
            _ => "RUNNING",
        };
        let reachable = age > ADDRESS && !matches!(self.fault, Some(Fault::Stuck | Fault::NeverReachable));
        let port = self.sshd.as_ref().map_or(0, |sshd| sshd.port);
        let user = self.sshd.as_ref().map(|sshd| sshd.target().split('@').next().unwrap().to_string());
        let direct = json!({ "host": "127.0.0.1", "port": port, "username": user, "command": format!("ssh root@127.0.0.1 -p {port}") });
        let proxy =
            json!({ "host": "ssh.runpod.io", "port": 22, "username": format!("{}-64411eb2", self.id), "command": "" });
        let ports = json!([{ "private": 22, "public": port, "type": "tcp", "ip": "127.0.0.1" }]);
        json!({
            "id": self.id, "name": self.name, "status": status, "actions": ["stop", "restart", "terminate"],
            "image": self.body["image"], "args": "", "disk": self.body.get("disk"), "mounts": {}, "ports": self.body.get("ports"),
            "env": self.body.get("env"), "registry": null, "gpu": self.body.get("gpu"), "cloud": self.body.get("cloud"),
            "dataCenterId": "EU-RO-1", "cudaVersion": "12.8",
            "ssh": { "proxy": proxy, "direct": if reachable { direct } else { Value::Null } },
            "template": null, "cost": self.price, "locked": false, "globalNetworking": { "enabled": false },
            "runtime": if reachable { json!({ "uptime": age.as_secs(), "ports": ports }) } else { Value::Null },
            "createdAt": "2026-11-01T12:00:00Z", "startedAt": null,
        })
    }
}
