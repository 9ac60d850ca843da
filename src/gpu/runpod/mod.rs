//! RunPod, by its REST API v2 (openapi.json of docs.runpod.io, August 2026).

mod answer;
mod client;
mod key;

use std::collections::HashSet;
use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::failure::Failure;
use super::id::ProviderId;
use super::provider::{Description, Offer, PREFIX, Provider, Reached, SshAddress, Want, ssh};
use crate::error::{Error, Result};
use crate::plain::plain;
use crate::remote::Machine;

pub use answer::fingerprints;
use answer::{description, is_cursor, is_id, price, shown, unexpected};
pub use client::base;
use client::{AGENT, Client};

/// CUDA 12.8, with an sshd that starts if the environment contains a public key.
const IMAGE: &str = "runpod/base:1.0.2-cuda1281-ubuntu2404";
pub const CUDA: &str = "12.8";
/// A pod without a sign of life from a worker's guardian for this time ends itself: its client died
/// before it started one, or everything in it was killed.
const GUARD_SECONDS: u64 = 40 * 60;
const BANNER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Machines per page of a listing, and its largest number of pages.
const PAGE: usize = 1000;
const MAX_PAGES: usize = 1000;
/// The largest number of machines of an account.
const MOST_PODS: usize = 100_000;
/// The largest number of addresses of a host that are tried.
const ADDRESSES: usize = 4;

pub struct RunPod {
    client: Client,
}

/// True if this user has a key for RunPod.
pub fn has_key() -> bool {
    key::find().is_ok()
}

impl RunPod {
    /// Opens RunPod with the user's key.
    pub fn new() -> Result<Self> {
        Ok(Self { client: Client::new(key::find()?)? })
    }

    /// The result of `read` for every pod. Only that is kept while pages are read.
    fn pods<T>(&self, read: impl Fn(&Value) -> Option<Result<T>>) -> Result<Vec<T>> {
        let (mut pods, mut cursor, mut seen) = (Vec::new(), String::new(), HashSet::new());
        while seen.len() < MAX_PAGES && pods.len() < MOST_PODS && seen.insert(cursor.clone()) {
            let after = if cursor.is_empty() { String::new() } else { format!("&cursor={}", encoded(&cursor)) };
            let page = self.client.get(&format!("/v2/pods?limit={PAGE}{after}"))?;
            let here = page["pods"].as_array().ok_or_else(|| unexpected("the list of pods", &page))?;
            for pod in here.iter().filter_map(&read) {
                pods.push(pod?);
            }
            match page["pagination"]["nextCursor"].as_str() {
                Some(next) if page["pagination"]["hasNextPage"] == true && is_cursor(next) => cursor = next.to_string(),
                Some(_) if page["pagination"]["hasNextPage"] == true => {
                    return Err(unexpected("a page of the list of pods", &page["pagination"]));
                }
                _ => return Ok(pods),
            }
        }
        Err(Error::of(Failure::EndlessList))
    }

    /// The address of a pod. Its id may come from a ledger.
    fn pod(&self, id: &str) -> Result<String> {
        match is_id(id) {
            true => Ok(format!("/v2/pods/{id}")),
            false => Err(Error::of(Failure::NoPodId(plain(id, 100)))),
        }
    }
}

/// Percent-encoded for a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// True if a GPU has the requested name: every word of the name occurs in the id or name of its
/// type.
fn is_named(gpu: &Value, name: &str) -> bool {
    let full = format!("{} {}", gpu["id"].as_str().unwrap_or(""), gpu["name"].as_str().unwrap_or("")).to_lowercase();
    let words: Vec<&str> = full.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    name.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .all(|word| words.contains(&word))
}

impl Provider for RunPod {
    fn id(&self) -> &ProviderId {
        &ProviderId::RunPod
    }

    fn offers(&self, want: &Want) -> Result<Vec<Offer>> {
        let cuda = want.min_cuda.as_deref().unwrap_or(CUDA);
        let count = want.gpu_count.max(1);
        let mut offers: Vec<(usize, Offer)> = Vec::new();
        for cloud in ["secure", "community"] {
            if want.cloud.as_deref().is_some_and(|wanted| wanted != "any" && wanted != cloud) {
                continue;
            }
            let path = format!(
                "/v2/catalog/gpus?include=AVAILABILITY&product=POD&count={count}&cloud={}&minCudaVersion={}",
                cloud.to_uppercase(),
                encoded(cuda)
            );
            let catalogue = self.client.get(&path)?;
            let gpus = catalogue["gpus"].as_array().ok_or_else(|| unexpected("the catalogue", &catalogue))?;
            for gpu in gpus {
                let rank =
                    if want.gpus.is_empty() { Some(0) } else { want.gpus.iter().position(|name| is_named(gpu, name)) };
                let price = price(&gpu["price"][cloud]).unwrap_or(0.0) * count as f64;
                let vram_gb = gpu["memory"].as_f64().unwrap_or(0.0);
                let stock = shown(&gpu["availability"]).unwrap_or_default().to_lowercase();
                let max = gpu["maxCount"][cloud].as_u64().unwrap_or(0);
                let fits = price > 0.0
                    && stock != "none"
                    && max >= count as u64
                    && gpu["manufacturer"] == "NVIDIA"
                    && want.min_vram_gb.is_none_or(|least| vram_gb >= least)
                    && want.max_price.is_none_or(|most| price <= most);
                if let (Some(rank), true, Some(gpu)) = (rank, fits, shown(&gpu["id"])) {
                    let (provider, cloud) = (ProviderId::RunPod, cloud.to_string());
                    offers.push((rank, Offer { provider, gpu, gpu_count: count, vram_gb, cloud, price, stock }));
                }
            }
        }
        offers.sort_by(|(a_rank, a), (b_rank, b)| a_rank.cmp(b_rank).then(a.price.total_cmp(&b.price)));
        Ok(offers.into_iter().map(|(_, offer)| offer).collect())
    }

    fn create(&self, name: &str, offer: &Offer, want: &Want, public_key: &str) -> Result<Description> {
        let mut body = json!({
            "name": name,
            "image": want.image.as_deref().unwrap_or(IMAGE),
            "cloud": offer.cloud.to_uppercase(),
            "gpu": {
                "id": offer.gpu,
                "count": offer.gpu_count,
                "minCudaVersion": want.min_cuda.as_deref().unwrap_or(CUDA),
            },
            "disk": want.disk_gb,
            "ports": ["22/tcp"],
            "startSsh": true,
            "env": { "PUBLIC_KEY": public_key, "SSH_PUBLIC_KEY": public_key },
        });
        // It is not known whether another image starts an sshd.
        if want.image.is_none() {
            body["cmd"] = json!(["bash", "-c", guard(GUARD_SECONDS)]);
        }
        description(&self.client.post("/v2/pods", &body)?)
    }

    fn describe(&self, id: &str) -> Result<Option<Description>> {
        let pod = self.client.find(&self.pod(id)?)?;
        pod.filter(|pod| pod["status"] != "TERMINATED").map(|pod| description(&pod)).transpose()
    }

    fn list(&self) -> Result<Vec<Description>> {
        // An invalid pod of other work must not hide ours.
        let ours = |pod: &Value| pod["name"].as_str().is_some_and(|name| name.starts_with(PREFIX));
        self.pods(|pod| match description(pod) {
            _ if pod["status"] == "TERMINATED" => None,
            Err(_) if !ours(pod) => None,
            read => Some(read),
        })
    }

    fn terminate(&self, id: &str) -> Result<()> {
        self.client.delete(&self.pod(id)?)
    }

    fn logs(&self, id: &str) -> Result<String> {
        let mut lines = self.client.lines(&format!("{}/logs?source=system&tail=1000", self.pod(id)?))?;
        lines.extend(self.client.lines(&format!("{}/logs?source=container&tail=5000", self.pod(id)?))?);
        Ok(lines.join("\n"))
    }

    /// sshd answers some time after its port is known. The host key is in the container's log.
    fn reach(&self, machine: &Description, key: &Path) -> Result<Option<Reached>> {
        let Some(address) = machine.ssh.clone().filter(has_banner) else { return Ok(None) };
        let lines = self.client.lines(&format!("{}/logs?source=container&tail=5000", self.pod(&machine.id)?))?;
        let fingerprints = fingerprints(&lines.join("\n"));
        if fingerprints.is_empty() {
            return Ok(None);
        }
        let machine = ssh(&address, key, &fingerprints, CONNECT_TIMEOUT)?;
        Ok(Some(Reached { machine, ssh: Some(address), fingerprints }))
    }

    fn again(&self, address: &SshAddress, key: &Path, fingerprints: &[String]) -> Result<Arc<dyn Machine>> {
        ssh(address, key, fingerprints, CONNECT_TIMEOUT)
    }

    /// Inside a pod the environment contains its id and a key for itself.
    fn give_back_command(&self, worker: &str) -> Option<String> {
        Some(format!("{worker} worker end-pod"))
    }
}

/// The start of our pods: a process that ends the pod if nobody looks after it, then the image's
/// own start. A worker's guardian updates the time of its lock regularly. If no time changes in
/// `seconds`, there is no guardian (any more).
fn guard(seconds: u64) -> String {
    let api = "${OUTLIER_RUNPOD_URL:-https://api.runpod.io}";
    // The key is passed through a pipe, because everybody in the pod sees arguments.
    let delete = format!(
        "printf 'Authorization: Bearer %s' \"$RUNPOD_API_KEY\" | \
         curl -fsS -A {AGENT} -X DELETE -H @- \"{api}/v2/pods/$RUNPOD_POD_ID\""
    );
    format!(
        "lives() {{ now=$(stat -c %Y ~/.outlier/w/*/worker.lock 2>/dev/null); [ \"$now\" != \"$seen\" ] && seen=$now; }}; \
         (seen=; while sleep {seconds}; do until lives; do \
         {delete} || runpodctl pod delete \"$RUNPOD_POD_ID\" || runpodctl remove pod \"$RUNPOD_POD_ID\"; \
         sleep 30; done; done) & exec /start.sh"
    )
}

fn has_banner(address: &SshAddress) -> bool {
    let addresses = (address.host.as_str(), address.port).to_socket_addrs().into_iter().flatten().take(ADDRESSES);
    let answers = |address| -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, BANNER_TIMEOUT)?;
        stream.set_read_timeout(Some(BANNER_TIMEOUT))?;
        let mut begin = [0; 4];
        stream.read_exact(&mut begin)?;
        Ok(&begin == b"SSH-")
    };
    addresses.into_iter().any(|address| answers(address).unwrap_or(false))
}

/// Ends the pod of this process, by whichever way works.
///
/// # Errors
/// If no way works.
pub fn end_self() -> Result<()> {
    let variable =
        |name: &str| std::env::var(name).ok().or_else(|| of_first_process(name)).filter(|text| !text.is_empty());
    let id = variable("RUNPOD_POD_ID").filter(|id| is_id(id));
    let id = id.ok_or_else(|| Error::of(Failure::NoPod))?;
    let key = variable("RUNPOD_API_KEY").and_then(|key| crate::secret::Secret::new(&key));
    let by_api = key
        .ok_or_else(|| Error::of(Failure::PodWithoutKey))
        .and_then(|key| Client::new(key)?.delete(&format!("/v2/pods/{id}")));
    let Err(error) = by_api else { return Ok(()) };
    // The image's tool, with its newer and its older syntax.
    for words in [["pod", "delete"], ["remove", "pod"]] {
        let status = std::process::Command::new("runpodctl").args(words).arg(&id).status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    Err(error)
}

/// Sessions of sshd do not have the environment of the container's first process.
fn of_first_process(name: &str) -> Option<String> {
    let environment = std::fs::read("/proc/1/environ").ok()?;
    let entries = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    entries
        .into_iter()
        .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    #[test]
    fn gpus_are_found_by_parts_of_their_names() {
        let gpu = json!({ "id": "NVIDIA A100-SXM4-80GB", "name": "A100 SXM" });
        for name in ["A100", "a100 sxm", "NVIDIA A100-SXM4-80GB", "A100 80GB"] {
            assert!(is_named(&gpu, name), "{name}");
        }
        for name in ["A10", "H100", "A100 PCIe"] {
            assert!(!is_named(&gpu, name), "{name}");
        }
    }

    /// The start of a pod without the image's own, with simulated time.
    struct Start {
        home: tempfile::TempDir,
        service: std::net::TcpListener,
        process: std::process::Child,
    }

    impl Start {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let path = |name: &str| home.path().join(name);
            assert!(std::process::Command::new("mkfifo").arg(path("time")).status().unwrap().success());
            std::fs::create_dir(path("bin")).unwrap();
            std::fs::write(path("bin/sleep"), "#!/bin/sh\necho $1 >> ~/slept\nread line < ~/time\n").unwrap();
            std::fs::set_permissions(path("bin/sleep"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let process = std::process::Command::new("bash")
                .args(["-c", &guard(GUARD_SECONDS).replace("exec /start.sh", "wait")])
                .env("OUTLIER_RUNPOD_URL", format!("http://{}", service.local_addr().unwrap()))
                .envs([("RUNPOD_POD_ID", "pod7"), ("RUNPOD_API_KEY", "rpa_own")])
                .env("HOME", home.path())
                .env("PATH", format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap()))
                .process_group(0)
                .spawn()
                .unwrap();
            Self { home, service, process }
        }

        /// Waits until it sleeps for the `count`th time, and returns the seconds.
        fn sleeps(&self, count: usize) -> u64 {
            loop {
                let slept = std::fs::read_to_string(self.home.path().join("slept")).unwrap_or_default();
                match slept.lines().nth(count - 1) {
                    Some(line) if slept.ends_with('\n') => return line.parse().unwrap(),
                    _ => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        }

        fn wakes(&self) {
            std::fs::write(self.home.path().join("time"), "\n").unwrap();
        }

        /// Its next request, which is answered.
        fn asks(&self) -> String {
            let (mut stream, _) = self.service.accept().unwrap();
            let (mut request, mut piece) = (String::new(), [0; 4096]);
            while !request.contains("\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "{request}");
                request += &String::from_utf8_lossy(&piece[..count]);
            }
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            request
        }
    }

    /// It ends with the test.
    impl Drop for Start {
        fn drop(&mut self) {
            // SAFETY: this is the process group that was created for it.
            unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
            let _ = self.process.wait();
        }
    }

    #[test]
    fn a_pod_that_nobody_comes_to_ends_itself() {
        let pod = Start::new();
        assert_eq!(pod.sleeps(1), GUARD_SECONDS);
        pod.wakes();
        let request = pod.asks();
        assert!(request.starts_with("DELETE /v2/pods/pod7 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("Authorization: Bearer rpa_own\r\n"), "{request}");
        assert!(request.contains(&format!("User-Agent: {AGENT}\r\n")), "{request}");
        assert_eq!(pod.sleeps(2), 30, "it tries again as long as it is there");
    }

    /// Guardian and worker end together if everything in a container but its first process is
    /// killed.
    #[test]
    fn a_pod_that_nobody_looks_after_any_more_ends_itself() {
        let pod = Start::new();
        let lock = pod.home.path().join(".outlier/w/x/worker.lock");
        std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
        let lock = std::fs::File::create(lock).unwrap();
        for turn in 1..=3 {
            assert_eq!(pod.sleeps(turn), GUARD_SECONDS, "no attempt to end it lies between two looks");
            lock.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(turn as u64)).unwrap();
            pod.wakes();
        }
        assert_eq!(pod.sleeps(4), GUARD_SECONDS);
        pod.wakes();
        let request = pod.asks();
        assert!(request.starts_with("DELETE /v2/pods/pod7 HTTP/1.1\r\n"), "{request}");
    }
}
