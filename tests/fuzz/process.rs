//! One run of the program within limits, in a process group of its own and without any account of
//! this machine in its environment, with how it ended and what it used.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// More address space than this is refused, so that a program that asks for all memory does not get it.
const ADDRESS_SPACE: u64 = 6 << 30;
/// Of each output so much is kept.
const KEPT_OUTPUT: usize = 200_000;
/// What a case has started has this variable in its environment, and is found by it however it left the group.
const TRACE: &str = "OUTLIER_FUZZ_TRACE";

/// What to do to a program that runs, and what is wrong with what it does.
pub type Meanwhile = Box<dyn FnOnce() -> Vec<String> + Send>;

/// A program to be started in the folder of its case.
#[derive(Default)]
pub struct Start {
    pub words: Vec<OsString>,
    pub environment: Vec<(String, OsString)>,
    /// Seconds after the start, and the signal that is sent then.
    pub signals: Vec<(f64, i32)>,
    /// Runs beside the program; the signals count from its end.
    pub meanwhile: Option<Meanwhile>,
    /// What must stay until the program has ended, such as a server.
    pub beside: Option<Box<dyn std::any::Any + Send>>,
    /// It may start processes that leave its group.
    pub leaves_processes: bool,
    /// Files that the program may leave in the folder beside those that were there; any where it is empty.
    pub may_write: Vec<&'static str>,
}

impl Start {
    pub fn of(words: &[&str]) -> Self {
        Self { words: words.iter().map(OsString::from).collect(), ..Self::default() }
    }

    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_string(), value.into()));
        self
    }

    /// Ctrl-C after `seconds`, and once more.
    pub fn interrupted(mut self, seconds: f64) -> Self {
        self.signals.extend([(seconds, libc::SIGINT), (seconds + 3.0, libc::SIGINT)]);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Code(i32),
    Signal(i32),
    /// It had to be killed.
    Hang,
}

pub struct Ended {
    pub end: End,
    pub wall: Duration,
    /// Bytes of memory at its peak.
    pub memory: u64,
    pub output: String,
    pub errors: String,
    /// What the observer beside it found wrong.
    pub observed: Vec<String>,
}

/// The variables of every run. There is no hub, no service and no token.
fn environment(command: &mut Command, folder: &Path) {
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin").env("LANG", "C.UTF-8");
    command
        .env("HOME", folder.join("home"))
        .env("HF_HOME", folder.join("hf"))
        .env("XDG_CACHE_HOME", folder.join("cache"));
    // Port 9 is "discard": nothing answers.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("OUTLIER_RUNPOD_URL", "http://127.0.0.1:9");
    command.env("HF_HUB_OFFLINE", "1").env("HF_HUB_DOWNLOAD_TIMEOUT", "1").env("OUTLIER_POLL_SECONDS", "0.1");
    command.env("RUST_BACKTRACE", "0").env("RAYON_NUM_THREADS", "2");
}

/// Runs the program and waits for its end, at most so long.
pub fn run(program: &Path, folder: &Path, start: Start, limit: Duration) -> Ended {
    let trace = format!("{}", folder.display());
    let mut command = Command::new(program);
    environment(&mut command, folder);
    command.args(&start.words).current_dir(folder).env(TRACE, &trace);
    command.envs(start.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: setsid, signal and setrlimit are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            // The fuzzer may run in the background of a shell, where Ctrl-C is ignored.
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            let limit = |what, bytes| libc::setrlimit(what, &libc::rlimit { rlim_cur: bytes, rlim_max: bytes });
            limit(libc::RLIMIT_AS, ADDRESS_SPACE);
            limit(libc::RLIMIT_CORE, 0);
            Ok(())
        });
    }
    let begin = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("starting {}: {e}", program.display()));
    let output = collect(child.stdout.take());
    let errors = collect(child.stderr.take());
    let observed = start.meanwhile.map(|meanwhile| meanwhile()).unwrap_or_default();
    let (status, usage) = wait(&mut child, &start.signals, limit);
    let wall = begin.elapsed();
    // SAFETY: the group is that of the child, which called setsid.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
    if start.leaves_processes {
        sweep(&trace);
    }
    drop(start.beside);
    let end = match status {
        None => End::Hang,
        Some(status) if libc::WIFSIGNALED(status) => End::Signal(libc::WTERMSIG(status)),
        Some(status) => End::Code(libc::WEXITSTATUS(status)),
    };
    let memory = usage.ru_maxrss as u64 * 1024;
    Ended { end, wall, memory, output: output.text(), errors: errors.text(), observed }
}

/// The status that the child ended with by itself, and what it used.
fn wait(child: &mut Child, signals: &[(f64, i32)], limit: Duration) -> (Option<i32>, libc::rusage) {
    let pid = child.id() as i32;
    let begin = Instant::now();
    let mut signals = signals.iter().peekable();
    let mut hangs = false;
    loop {
        let mut status = 0;
        // SAFETY: zero is a valid value of all fields.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both places are valid for writing; nobody else waits for this child.
        if unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) } == pid {
            return ((!hangs).then_some(status), usage);
        }
        let elapsed = begin.elapsed();
        while let Some((_, signal)) = signals.next_if(|(after, _)| elapsed.as_secs_f64() >= *after) {
            // SAFETY: the child has not been waited for, so its id is its own.
            unsafe { libc::kill(pid, *signal) };
        }
        if elapsed > limit && !hangs {
            hangs = true;
            // SAFETY: as above.
            unsafe { libc::kill(-pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(if elapsed.as_millis() < 300 { 2 } else { 15 }));
    }
}

/// Ends what has this trace in its environment.
pub fn sweep(trace: &str) {
    let wanted = format!("{TRACE}={trace}");
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
            // SAFETY: a process that the case has started; nothing else has its folder in its environment.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

struct Collected {
    data: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

/// Reads everything and keeps beginning and end, so that a program which writes without an end fills no disk.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Collected {
    let data = Arc::new(Mutex::new(Vec::new()));
    let kept = data.clone();
    let thread = std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let mut kept = kept.lock().expect("no panic under this lock");
            kept.extend_from_slice(&buffer[..count]);
            let middle = KEPT_OUTPUT / 2..kept.len().saturating_sub(KEPT_OUTPUT / 2);
            if !middle.is_empty() {
                kept.drain(middle);
            }
        }
    });
    Collected { data, thread }
}

impl Collected {
    /// Does not wait long for whoever still holds the other end.
    fn text(self) -> String {
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        String::from_utf8_lossy(&self.data.lock().expect("no panic under this lock")).into_owned()
    }
}
