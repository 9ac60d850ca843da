//! Tests of `outlier worker`, its guardian and its socket from the other machine's side, with
//! clients that are honest, broken or malicious, and with other users.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::project::{self, Outcome, Project, repository};

/// The longest wait. What the tests wait for takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

#[track_caller]
fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// Waits until the process has ended. Its connections break before that.
#[track_caller]
fn goes(pid: u32) {
    let begin = Instant::now();
    while exists(pid) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{pid} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn exists(pid: u32) -> bool {
    // What has ended and is only waited for does not count.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// `outlier worker serve`, which notes in the file `gave_back` that it has given the machine back.
struct Serving {
    project: Project,
    process: Child,
}

impl Serving {
    fn start(words: &[&str]) -> Self {
        Self::start_in(Project::new(), words, |_| ())
    }

    fn start_in(project: Project, words: &[&str], more: impl FnOnce(&mut Command)) -> Self {
        let folder = project.path("w").display().to_string();
        let serve = ["worker", "serve", "--folder", &folder, "--on-end", "echo >> gave_back"];
        let mut command = project.command(&[&serve, words].concat());
        let log = std::fs::File::create(project.path("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        more(&mut command);
        let process = command.spawn().unwrap();
        Self { project, process }
    }

    fn socket(&self) -> PathBuf {
        self.project.path("w/worker.sock")
    }

    /// A connection without a greeting.
    #[track_caller]
    fn connect(&self) -> UnixStream {
        let mut stream = None;
        wait_for("the socket", || {
            stream = UnixStream::connect(self.socket()).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection with a greeting. If it was accepted by a dying worker, it breaks, and another
    /// is made, as clients do.
    #[track_caller]
    fn client(&self) -> Client {
        let mut client = None;
        wait_for("a greeting", || {
            let mut stream = self.connect();
            let mut byte = [0];
            let mut greeted = stream.write_all(greeting().as_bytes());
            while greeted.is_ok() && byte[0] != b'\n' {
                greeted = stream.read_exact(&mut byte);
            }
            client = greeted.is_ok().then_some(Client(stream));
            client.is_some()
        });
        client.unwrap()
    }

    #[track_caller]
    fn status(&self) -> Value {
        self.client().ask(&json!("Status")).expect("it answers")["Status"].clone()
    }

    /// The process id of the worker.
    #[track_caller]
    fn worker(&self) -> u32 {
        self.status()["pid"].as_u64().unwrap() as u32
    }

    fn given_back(&self) -> usize {
        if self.project.has("gave_back") { self.project.text("gave_back").lines().count() } else { 0 }
    }

    fn log(&self) -> String {
        self.project.text("log")
    }

    /// Checks that the machine is given back once, and that nothing runs any more.
    #[track_caller]
    fn ends(&mut self) {
        wait_for("the machine to be given back", || self.given_back() > 0);
        wait_for("the end of the process", || self.process.try_wait().unwrap().is_some());
        assert_eq!(self.given_back(), 1, "{}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let here = self.project.path("w").display().to_string();
        let _ = self.process.kill();
        let _ = self.process.wait();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>()
                && String::from_utf8_lossy(&line).contains(&here)
            {
                signal("-KILL", pid);
            }
        }
    }
}

fn greeting() -> String {
    let wire = std::fs::read_to_string(repository().join("src/session/wire.rs")).unwrap();
    let protocol = wire.split("PROTOCOL: u32 = ").nth(1).unwrap().split(';').next().unwrap().to_string();
    format!("outlier worker protocol {protocol} version {}\n", env!("CARGO_PKG_VERSION"))
}

struct Client(UnixStream);

impl Client {
    fn send(&mut self, request: &impl Serialize) -> Option<()> {
        let bytes = rmp_serde::to_vec_named(request).unwrap();
        let length = (bytes.len() as u64).to_le_bytes();
        self.0.write_all(&[&length[..], &bytes].concat()).ok()
    }

    /// The next answer, or None if the connection has been closed.
    fn receive(&mut self) -> Option<Value> {
        let mut length = [0; 8];
        self.0.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        self.0.read_exact(&mut bytes).ok()?;
        Some(rmp_serde::from_slice(&bytes).unwrap())
    }

    fn ask(&mut self, request: &impl Serialize) -> Option<Value> {
        self.send(request)?;
        self.receive()
    }

    /// The events, as warnings, and the outcome of a call.
    fn call(&mut self, id: &str, op: &Value, fresh: bool) -> Option<(Vec<String>, Value)> {
        self.send(&call(id, op, fresh))?;
        let mut events = Vec::new();
        loop {
            let answer = self.receive()?;
            match answer.get("Outcome") {
                Some(outcome) => return Some((events, outcome["outcome"].clone())),
                None => events.push(answer["Event"]["event"]["Warning"].as_str().unwrap_or_default().to_string()),
            }
        }
    }
}

fn call(id: &str, op: &Value, fresh: bool) -> Value {
    json!({ "Call": { "id": id, "op": op, "seen": 0, "fresh": fresh } })
}

/// A request that is done at once.
fn quick() -> Value {
    json!({ "Tokens": { "Ids": { "ids": [[1, 2], [3, 4]] } } })
}

/// A request that never ends, because its hub never answers.
fn endless() -> Value {
    json!({ "Load": { "id": "no/model", "revision": null, "dtype": "f32", "device": "cpu", "chunk_layers": 2, "stream": true } })
}

/// A worker whose hub accepts connections and says nothing.
fn with_silent_hub(words: &[&str]) -> (Serving, TcpListener) {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", hub.local_addr().unwrap());
    let serving = Serving::start_in(Project::new(), words, |command| {
        command.env("HF_ENDPOINT", address);
    });
    (serving, hub)
}

#[test]
fn the_machine_is_given_back_though_the_worker_is_killed() {
    for name in ["-KILL", "-ABRT", "-SEGV"] {
        let mut serving = Serving::start(&["--lease", "2"]);
        let worker = serving.worker();
        signal(name, worker);
        serving.ends();
        goes(worker);
    }
}

#[test]
fn the_machine_is_given_back_though_the_worker_runs_out_of_memory() {
    let mut serving = Serving::start(&["--lease", "15"]);
    let worker = serving.worker();
    let mut client = serving.client();
    assert!(client.ask(&json!("Status")).is_some());
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    let limit = [format!("--as={}", (kib + 16 * 1024) * 1024), format!("--pid={worker}")];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    // A million lists of nothing: small to send, large to hold.
    let ids: Vec<[u32; 0]> = vec![[]; 1_000_000];
    let op = json!({ "Tokens": { "Ids": { "ids": ids } } });
    assert!(client.call("x", &op, true).is_none(), "it has died of it");
    goes(worker);
    serving.ends();
    assert!(serving.log().contains("signal 6"), "{}", serving.log());
}

/// The lease and the lifetime of a worker continue, whatever delays it (here all of its threads).
#[test]
fn a_worker_that_stands_still_keeps_no_machine() {
    for words in [["--lease", "2"], ["--lifetime", "2"]] {
        let mut serving = Serving::start(&words);
        signal("-STOP", serving.worker());
        serving.ends();
    }
}

#[test]
fn without_its_guardian_the_worker_gives_the_machine_back() {
    let mut serving = Serving::start(&["--lease", "3"]);
    let worker = serving.worker();
    serving.process.kill().unwrap();
    serving.process.wait().unwrap();
    assert_eq!(serving.worker(), worker, "it goes on with its work");
    serving.ends();
    wait_for("the end of the worker", || !exists(worker));
}

#[test]
fn a_signal_to_either_ends_both() {
    for to_worker in [false, true] {
        let mut serving = Serving::start(&["--lease", "600"]);
        let worker = serving.worker();
        let pid = if to_worker { worker } else { serving.process.id() };
        signal("-TERM", pid);
        serving.ends();
        goes(worker);
    }
}

/// Old connections end with a worker that dies. The next client finds another worker, and is told.
#[test]
fn a_call_begins_again_after_a_death_but_not_for_ever() {
    let (serving, _hub) = with_silent_hub(&["--lease", "600", "--lifetime", "600"]);
    let mut first = serving.client();
    first.send(&call("x", &endless(), true)).unwrap();
    for death in 1..=3 {
        wait_for("the call", || serving.status()["at_work"] == json!(["x"]));
        signal("-KILL", serving.worker());
        if death < 3 {
            let mut again = serving.client();
            again.send(&call("x", &endless(), false)).unwrap();
            let event = again.receive().expect("it is told");
            let warning = event["Event"]["event"]["Warning"].as_str().unwrap_or_default().to_string();
            assert!(warning.contains("the worker has died") && warning.contains("checkpoint"), "{event}");
        }
    }
    let (_, outcome) = serving.client().call("x", &endless(), false).unwrap();
    assert_eq!(outcome["Err"]["kind"], "Oom", "{outcome}");
    let message = outcome["Err"]["message"].as_str().unwrap();
    assert!(message.contains("died 3 times in a row") && message.contains("signal 9"), "{message}");
    assert!(outcome["Err"]["hint"].as_str().unwrap().contains("memory_budget"), "{outcome}");
    // Whoever begins anew is not refused for that, and other work goes on.
    assert!(serving.client().call("y", &quick(), true).unwrap().1.get("Ok").is_some());
    assert_eq!(serving.given_back(), 0);
}

/// Requests and the checks of limits run side by side, as often as possible, and neither delays the
/// other for ever.
#[test]
fn however_it_is_hammered_it_ends_when_it_should() {
    for _ in 0..2 {
        // The limit on standing still has the calls at work counted at every look.
        let mut serving = Serving::start(&["--lease", "4", "--lifetime", "4", "--stall", "0.000001"]);
        serving.connect();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            for thread in 0..12 {
                let (serving, stop) = (&serving, &stop);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(relaxed) {
                        let Ok(stream) = UnixStream::connect(serving.socket()) else { return };
                        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                        let mut client = Client(stream);
                        if client.0.write_all(greeting().as_bytes()).is_err() {
                            return;
                        }
                        while !stop.load(relaxed) {
                            let mut sent = Some(());
                            for _ in 0..8 {
                                count += 1;
                                sent = sent
                                    .and_then(|()| client.send(&call(&format!("{thread}-{count}"), &quick(), true)));
                            }
                            if sent.is_none() || client.0.read(&mut [0; 1 << 16]).is_err() {
                                break;
                            }
                        }
                    }
                });
            }
            let begin = Instant::now();
            while serving.given_back() == 0 && begin.elapsed() < Duration::from_secs(45) {
                std::thread::sleep(Duration::from_millis(50));
            }
            stop.store(true, relaxed);
        });
        assert_eq!(serving.given_back(), 1, "lease and lifetime have gone by, and it does not end: {}", serving.log());
        serving.ends();
    }
}

#[derive(Serialize)]
enum Number {
    Renew { seconds: f64 },
}

#[test]
fn numbers_that_are_no_times_renew_nothing_and_end_nothing() {
    let mut serving = Serving::start(&["--lease", "60", "--lifetime", "600"]);
    let worker = serving.worker();
    for number in [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY, -0.5] {
        assert_eq!(
            serving.client().ask(&Number::Renew { seconds: number }),
            None,
            "{number}: the connection is closed"
        );
        assert!(serving.status()["lease"].as_f64().unwrap() <= 60.0, "{number}");
    }
    for number in [1e300, f64::MAX, 1e19] {
        assert_eq!(serving.client().ask(&Number::Renew { seconds: number }), Some(json!("Done")), "{number}");
        assert!(serving.status()["lease"].as_f64().unwrap() > 1e8, "{number}");
    }
    assert_eq!(serving.worker(), worker, "it is the same one");
    assert_eq!(serving.client().ask(&Number::Renew { seconds: 0.0 }), Some(json!("Done")));
    serving.ends();
}

#[test]
fn limits_on_the_command_line_are_times() {
    let project = Project::new();
    for limit in ["--lease", "--stall", "--lifetime"] {
        for value in ["nan", "-1", "inf", "-inf", "", "x"] {
            for command in ["serve", "attach"] {
                let word = format!("{limit}={value}");
                let folder = project.path("w").display().to_string();
                let mut started = project.command(&["worker", command, "--folder", &folder, &word]);
                let mut child = started.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                wait_for("a refusal", || child.try_wait().unwrap().is_some());
                assert_eq!(child.wait().unwrap().code(), Some(2), "{command} {word}");
            }
        }
        let serving = Serving::start(&[limit, "1e300"]);
        assert!(serving.status()["age"].as_f64().unwrap() < 60.0);
    }
}

fn mode(path: PathBuf) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// The folder is closed to others before it has a socket, whatever it was before.
#[test]
fn a_neighbour_cannot_reach_the_socket() {
    let project = Project::new();
    std::fs::set_permissions(project.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(project.path("w")).unwrap();
    std::fs::set_permissions(project.path("w"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let serving = Serving::start_in(project, &["--lease", "60"], |command| {
        // SAFETY: umask is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::umask(0);
                Ok(())
            });
        }
    });
    wait_for("the socket", || std::fs::symlink_metadata(serving.socket()).is_ok());
    assert_eq!(mode(serving.project.path("w")), 0o700);
    serving.status();
    assert_eq!(mode(serving.socket()), 0o600);
    assert_eq!(mode(serving.project.path("w/worker.lock")), 0o600);
    // SAFETY: it only tells who we are.
    if unsafe { libc::geteuid() } == 0 {
        let look = Command::new("ls").arg(serving.project.path("w")).uid(65_534).gid(65_534).output().unwrap();
        assert!(!look.status.success(), "{look:?}");
        // Even one who gets hold of the socket.
        std::fs::set_permissions(serving.project.path("w"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(serving.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
        let attach = serving.project.path("attach");
        std::fs::copy(project::program(), &attach).unwrap();
        let mut stranger = Command::new(attach);
        let folder = serving.project.path("w").display().to_string();
        stranger.args(["worker", "attach", "--folder", &folder]).uid(65_534).gid(65_534);
        let outcome = Outcome::of(stranger.stdin(Stdio::null()).output().unwrap()).ends(3);
        assert!(outcome.stderr.contains("belongs to another user"), "{}", outcome.stderr);
    }
}

#[test]
fn a_folder_that_others_have_prepared_is_refused() {
    let refused = |prepare: &dyn Fn(&Project), what: &str| {
        let project = Project::new();
        prepare(&project);
        let folder = project.path("a/w").display().to_string();
        let mut command = project.command(&["worker", "serve", "--folder", &folder, "--lifetime", "20"]);
        // A link is named by whoever gives the folder; the rest is found there.
        let code = if what.starts_with("is a link") { 1 } else { 3 };
        let outcome = Outcome::of(command.output().unwrap()).ends(code);
        assert!(outcome.stderr.contains(what) && outcome.stderr.contains("  hint: "), "{what}: {}", outcome.stderr);
        project
    };
    let folder = |project: &Project| std::fs::create_dir_all(project.path("a/w")).unwrap();
    let link = |project: &Project| {
        project.file("a/other/x", "");
        symlink(project.path("a/other"), project.path("a/w")).unwrap();
    };
    refused(&link, "is a link, or no folder");
    let open = |project: &Project| {
        folder(project);
        std::fs::set_permissions(project.path("a"), std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    refused(&open, "everybody may replace what is in");
    // SAFETY: it only tells who we are.
    if unsafe { libc::geteuid() } == 0 {
        let foreign = |project: &Project| {
            folder(project);
            std::os::unix::fs::chown(project.path("a/w"), Some(65_534), None).unwrap();
        };
        refused(&foreign, "belongs to another user (uid 65534)");
        let lock = |project: &Project| {
            project.file("a/w/worker.lock", "");
            std::os::unix::fs::chown(project.path("a/w/worker.lock"), Some(65_534), None).unwrap();
        };
        refused(&lock, "belongs to another user (uid 65534)");
    }
}

/// Links in the folder lead nowhere: neither the lock nor the log writes to the target of a link.
#[test]
fn links_in_the_folder_lead_nowhere() {
    for name in ["worker.lock", "worker.log"] {
        let project = Project::new();
        project.file("precious", "as it was");
        std::fs::create_dir(project.path("w")).unwrap();
        symlink(project.path("precious"), project.path("w").join(name)).unwrap();
        let folder = project.path("w").display().to_string();
        let mut command = project.command(&["worker", "attach", "--folder", &folder, "--lifetime", "20"]);
        let outcome = Outcome::of(command.stdin(Stdio::null()).output().unwrap()).ends(3);
        assert!(outcome.stdout.lines().count() == 1, "whoever expects a greeting is told: {}", outcome.stdout);
        assert_eq!(project.text("precious"), "as it was", "{name}");
    }
}

#[test]
fn what_clients_make_a_worker_hold_is_bounded() {
    let (serving, _hub) = with_silent_hub(&["--lease", "600", "--lifetime", "600"]);
    let worker = serving.worker();
    // Somebody greets, a letter now and then.
    let mut slow = serving.connect();
    let dripping = std::thread::spawn(move || {
        let begin = Instant::now();
        while slow.write_all(b"o").is_ok() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(500));
        }
        begin.elapsed()
    });
    // More connections than anybody needs, and threads that wait for the same call.
    let many: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = Client(serving.connect());
            client.0.write_all(greeting().as_bytes()).unwrap();
            client.send(&call("x", &endless(), false)).unwrap();
            client
        })
        .collect();
    let read = |name: &str| -> usize {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    wait_for("those that are too many to go", || read("Threads:") < 330);
    assert_eq!(serving.status()["at_work"], json!(["x"]));
    drop(many);
    wait_for("threads of those that have gone to go", || read("Threads:") < 60);
    // One that follows more calls than a client does.
    let mut greedy = serving.client();
    for number in 0..40 {
        let _ = greedy.send(&call(&format!("y{number}"), &endless(), true));
    }
    wait_for("the end of its connection", || greedy.receive().is_none());
    // What no client says.
    let long = "x".repeat(5000);
    let (_, refused) = serving.client().call(&long, &quick(), true).unwrap();
    assert!(refused["Err"]["message"].as_str().unwrap().contains("the id of a call"), "{refused}");
    assert_eq!(serving.client().ask(&json!({ "HubToken": { "token": long } })), None);
    let mut large = serving.client();
    large.0.write_all(&(u64::from(u32::MAX)).to_le_bytes()).unwrap();
    assert_eq!(large.receive(), None, "a frame of 4 GB is not waited for");
    // A call at work is not forgotten: it would be missing when all are to stop.
    assert_eq!(serving.client().ask(&json!({ "Forget": { "id": "x" } })), Some(json!("Done")));
    assert!(serving.status()["at_work"].as_array().unwrap().contains(&json!("x")));
    assert!(dripping.join().unwrap() < PATIENCE, "a greeting ends");
    assert_eq!(serving.worker(), worker, "{}", serving.log());
    assert!(!serving.log().contains("panicked"), "{}", serving.log());
}

/// A machine that is being given back does not begin again.
#[test]
fn while_the_machine_is_given_back_nobody_attaches() {
    let project = Project::new();
    let folder = project.path("w").display().to_string();
    let end = "touch ending; while [ ! -e go ]; do sleep 0.1; done";
    let serve = ["worker", "serve", "--folder", &folder, "--lifetime", "0.1", "--on-end", end];
    let mut serving = project.command(&serve).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the end to begin", || project.has("ending"));
    let mut attach = project.command(&["worker", "attach", "--folder", &folder]);
    let outcome = Outcome::of(attach.stdin(Stdio::null()).output().unwrap()).ends(3);
    assert!(outcome.stdout.contains("gives the machine back: its lifetime"), "{}{}", outcome.stdout, outcome.stderr);
    project.file("go", "");
    wait_for("the end", || serving.try_wait().unwrap().is_some());
}

/// Workers and machines that tests start do not outlive them, even if the tests are killed.
#[test]
fn nothing_outlives_the_tests() {
    let mark = format!("other-{}", std::process::id());
    let mut reaper = project::reaper(&mark);
    let mut left = Command::new("sleep").arg("600").env(project::MARK, &mark).spawn().unwrap();
    drop(reaper.stdin.take());
    assert_eq!(left.wait().unwrap().signal(), Some(libc::SIGKILL));
    reaper.wait().unwrap();
    let serving = Serving::start(&["--lease", "60"]);
    let carries = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        String::from_utf8_lossy(&environment).contains(&format!("{}={}", project::MARK, project::mark()))
    };
    assert!(carries(serving.worker()) && carries(serving.process.id()));
}

/// These helpers are for `security::line_19_…` and the following tests.
pub fn neighbours() {
    a_neighbour_cannot_reach_the_socket();
    links_in_the_folder_lead_nowhere();
}

pub fn deaths() {
    the_machine_is_given_back_though_the_worker_is_killed();
}

pub fn bounds() {
    what_clients_make_a_worker_hold_is_bounded();
}

pub fn times() {
    numbers_that_are_no_times_renew_nothing_and_end_nothing();
}
