//! A project in a temporary folder: tests write scripts and models into it, run the program there,
//! and examine the result.
//!
//! Programs started here see no token, no cache and no hub of the machine the tests run on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A finished analysis has one.
pub const FINAL: &str = "final_analysis_results.json";
/// What `keep: "full"` writes.
pub const FULL: &str = "activations.safetensors";

/// The folder of this package.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whatever tests start has this in its environment, and what that starts too.
pub const MARK: &str = "OUTLIER_TEST_RUN";

/// The value of `MARK` for this process. When it ends, however it does, nothing that carries the mark outlives it.
pub fn mark() -> &'static str {
    static MARKED: std::sync::OnceLock<(String, std::process::Child)> = std::sync::OnceLock::new();
    &MARKED
        .get_or_init(|| {
            let mark = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
            let reaper = reaper(&mark);
            (mark, reaper)
        })
        .0
}

/// A process that waits until its input ends, as it does when this process has gone, and then ends everything with that mark.
pub fn reaper(mark: &str) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let script = r#"cat > /dev/null; for turn in 1 2 3; do
        for file in $(grep -lszxF "$0" /proc/[0-9]*/environ); do p=${file#/proc/}; kill -9 "${p%/environ}"; done; sleep 0.2
        done 2> /dev/null"#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, &format!("{MARK}={mark}")]).stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: setsid is async-signal-safe. A signal to the group of the tests does not end it.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// The program under test: the one built with the tests, or the one that `OUTLIER_TEST_PROGRAM` names, such as an earlier
/// release that a test is expected to fail on.
pub fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("OUTLIER_TEST_PROGRAM") {
        Some(named) => PathBuf::from(named),
        None => PathBuf::from(env!("CARGO_BIN_EXE_outlier")),
    })
}

/// The program without its debug information: a tenth to send to machines.
pub fn stripped() -> &'static Path {
    static STRIPPED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    STRIPPED.get_or_init(|| {
        let program = program();
        let modified = program.metadata().unwrap().modified().unwrap();
        let age = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let made = Path::new(env!("CARGO_BIN_EXE_outlier")).with_file_name(format!("outlier-stripped-{age}"));
        if !made.exists() {
            let part = made.with_extension(std::process::id().to_string());
            let strip = Command::new("strip").arg("-o").arg(&part).arg(program).status();
            assert!(strip.expect("strip comes with the C compiler").success());
            std::fs::rename(&part, &made).unwrap();
        }
        made
    })
}

/// A folder for `LD_LIBRARY_PATH` in which no driver of NVIDIA's is found, where this machine has one: what tests start computes on
/// the processor, or on the GPUs that a test asks for.
pub fn without_driver() -> Option<&'static Path> {
    static FOLDER: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    let make = || {
        let asked_for = std::env::var_os("OUTLIER_TEST_DEVICE").is_some();
        // SAFETY: the name is a string; the loader runs the driver's own initialisation.
        if asked_for || unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY) }.is_null() {
            return None;
        }
        let folder = Path::new(env!("CARGO_BIN_EXE_outlier")).with_file_name("without-driver");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libcuda.so.1"), "no library").unwrap();
        Some(folder)
    };
    FOLDER.get_or_init(make).as_deref()
}

pub struct Project {
    folder: TempDir,
    /// Fingerprints of host keys that its user has vouched for.
    host_keys: String,
}

impl Project {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), host_keys: String::new() }
    }

    /// A project whose user vouches for this host key.
    pub fn trusting(fingerprint: &str) -> Self {
        Self { host_keys: fingerprint.to_string(), ..Self::new() }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file, with its folders.
    pub fn file(&self, path: &str, data: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, data).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self
    }

    /// Copies a file or folder of the repository.
    pub fn copy(&self, from: &str, to: &str) -> &Self {
        copy(&repository().join(from), &self.path(to));
        self
    }

    pub fn text(&self, path: &str) -> String {
        let path = self.path(path);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let path = self.path(path);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// All files below `folder`, relative to it, sorted.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path.strip_prefix(&root).unwrap().display().to_string()),
                }
            }
        }
        files.sort();
        files
    }

    /// The program, to be started in the project's folder.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_of(program(), words)
    }

    /// The same for a copy of the program.
    pub fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.folder.path());
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "RAYON_NUM_THREADS"] {
            command.env_remove(name);
        }
        command
            .env(MARK, mark())
            .env("RUST_BACKTRACE", "0")
            .env("HF_HOME", self.path("hf"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("OUTLIER_HOST_KEYS", &self.host_keys);
        if let Some(folder) = without_driver() {
            command.env("LD_LIBRARY_PATH", folder);
        }
        // Port 9 is "discard": nothing answers, so nothing is fetched from outside.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Outcome {
        Outcome::of(self.command(words).output().unwrap())
    }

    /// Runs `text` as a script file.
    pub fn script(&self, text: &str) -> Outcome {
        self.file("script.rhai", text).run(&["run", "script.rhai"])
    }

    /// Runs a script that must be refused: with this exit code, message and hint, and without a result that looks whole.
    #[track_caller]
    pub fn refuses(&self, script: &str, code: i32, message: &str, hint: &str) {
        let outcome = self.script(script).ends(code);
        let error = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(message), "expected {message:?} in\n{}", outcome.stderr);
        let told = outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: "));
        assert!(told.is_some_and(|told| told.contains(hint)), "expected the hint {hint:?} in\n{}", outcome.stderr);
        let looks_whole = |file: &String| file.contains(FINAL) || file.contains(FULL) || file.contains(".partial-");
        let left: Vec<_> = self.files("").into_iter().filter(looks_whole).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// How a program ended and what it wrote.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let code = output.status.code().unwrap_or_else(|| panic!("{}\n{stderr}", output.status));
        Self { code, stdout: String::from_utf8(output.stdout).unwrap(), stderr }
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The output of a script that ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        self.ends(0).stdout
    }

    /// The one JSON value that a script printed.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
}
