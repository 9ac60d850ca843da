//! A real Slurm of one node on loopback: munged, slurmctld and slurmd with a folder, a key and
//! ports of their own. Its GPUs are copies of /dev/null.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::sshd::Port;

/// More than any machine of the tests has: jobs of several tests run side by side.
const CPUS: usize = 32;
const GPUS: usize = 8;
const MEMORY_MB: usize = 64_000;
/// Everything that belongs to a cluster has this in its environment, and so is found again.
const MARK: &str = "OUTLIER_TEST_SLURM";
const STARTUP: Duration = Duration::from_secs(300);

pub struct Cluster {
    folder: TempDir,
    /// Of slurmctld and slurmd.
    ports: [Port; 2],
    daemons: Vec<Child>,
}

/// Tests that run at the same time share one; it ends with the last of them.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    fn start() -> Self {
        // SAFETY: it only tells who we are.
        let root = unsafe { libc::geteuid() } == 0;
        assert!(root, "Slurm gives jobs to users and devices to jobs: run these tests as root, in a container");
        for program in ["munged", "slurmctld", "slurmd", "sbatch"] {
            let found = ["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(program).exists());
            assert!(found, "{program} is missing: `sh .ci/packages tests` installs it (slurm-wlm and munge)");
        }
        let folder = tempfile::Builder::new().prefix("slurm").tempdir().unwrap();
        let mut cluster = Self { folder, ports: [Port::reserve(), Port::reserve()], daemons: Vec::new() };
        for name in ["home", "state", "spool", "munge"] {
            fs::create_dir(cluster.path(name)).unwrap();
        }
        private(&cluster.path("munge"), 0o755);
        private(cluster.folder.path(), 0o755);
        fs::write(cluster.path("munge/key"), (0..64).flat_map(|_| rand::random::<[u8; 16]>()).collect::<Vec<_>>())
            .unwrap();
        private(&cluster.path("munge/key"), 0o600);
        cluster.configure();
        let path = |name: &str| cluster.path(name).display().to_string();
        let munge = [
            "--foreground".to_string(),
            // A temporary folder is writable for others above ours.
            "--force".to_string(),
            format!("--key-file={}", path("munge/key")),
            format!("--socket={}", path("munge/socket")),
            format!("--pid-file={}", path("munge/pid")),
            format!("--log-file={}", path("munge/log")),
            format!("--seed-file={}", path("munge/seed")),
        ];
        let config = path("slurm.conf");
        cluster.daemon("munged", &munge);
        cluster.wait("munged", |cluster| UnixStream::connect(cluster.path("munge/socket")).is_ok());
        cluster.daemon("slurmctld", &["-D".to_string(), "-f".to_string(), config.clone()]);
        cluster.daemon("slurmd", &["-D".to_string(), "-f".to_string(), config]);
        cluster.wait("the node", |cluster| cluster.asks("sinfo", &["-h", "-o", "%T"]).trim() == "idle");
        cluster
    }

    fn configure(&self) {
        let host = String::from_utf8(Command::new("hostname").arg("-s").output().unwrap().stdout).unwrap();
        let host = host.trim();
        let root = self.folder.path().display();
        let mut devices = String::new();
        for index in 0..GPUS {
            let device = self.path(&format!("gpu{index}"));
            let made = Command::new("mknod").arg(&device).args(["c", "1", "3"]).status().unwrap();
            assert!(made.success(), "mknod {}", device.display());
            devices += &format!("NodeName={host} Name=gpu File={}\n", device.display());
        }
        fs::write(self.path("gres.conf"), devices).unwrap();
        let config = format!(
            "ClusterName=miniature\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={}\nSlurmdPort={}\n\
             SlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nAuthInfo=socket={root}/munge/socket\n\
             StateSaveLocation={root}/state\nSlurmdSpoolDir={root}/spool\n\
             SlurmctldPidFile={root}/ctld.pid\nSlurmdPidFile={root}/d.pid\n\
             SlurmctldLogFile={root}/slurmctld.log\nSlurmdLogFile={root}/slurmd.log\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nSwitchType=switch/none\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSlurmdParameters=config_overrides\n\
             ReturnToService=2\nKillWait=5\nMailProg=/bin/true\nGresTypes=gpu\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN\n\
             PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n\
             PartitionName=short Nodes={host} MaxTime=10 State=UP\n\
             PartitionName=closed Nodes={host} MaxTime=INFINITE State=DOWN\n",
            self.ports[0].number, self.ports[1].number,
        );
        fs::write(self.path("slurm.conf"), config).unwrap();
    }

    fn daemon(&mut self, program: &str, words: &[String]) {
        let log = fs::File::create(self.path(&format!("{program}.out"))).unwrap();
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        command.args(words).env(MARK, self.folder.path()).stdin(Stdio::null());
        command.env(crate::project::MARK, crate::project::mark());
        self.daemons.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    #[track_caller]
    fn wait(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !ready(self) {
            let log = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
            let end = |text: String| text.lines().rev().take(10).map(|line| format!("{line}\n")).collect::<String>();
            assert!(
                begin.elapsed() < STARTUP,
                "waited in vain for {what}; the last of the logs, last line first:\n{}{}{}{}",
                end(log("munge/log")),
                end(log("munged.out")),
                end(log("slurmctld.log")),
                end(log("slurmd.log"))
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    /// The home folder of its users, on all its nodes.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// What its users have in their environment.
    pub fn log_in<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SLURM_CONF", self.config()).env("HOME", self.home())
    }

    pub fn command(&self, program: &str, words: &[&str]) -> Output {
        self.log_in(Command::new(program).args(words)).output().unwrap()
    }

    fn asks(&self, program: &str, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.command(program, words).stdout).into_owned()
    }

    /// Names and ids of the jobs in the queue whose name begins so.
    pub fn jobs(&self, prefix: &str) -> Vec<(String, String)> {
        let queue = self.asks("squeue", &["-h", "-o", "%j|%i"]);
        let job = |line: &str| line.split_once('|').map(|(name, id)| (name.to_string(), id.to_string()));
        queue.lines().filter_map(job).filter(|(name, _)| name.starts_with(prefix)).collect()
    }

    /// Everything that runs in its jobs: process id, command line and environment.
    pub fn processes(&self) -> Vec<(i32, String, String)> {
        let home = format!("HOME={}", self.home().display());
        let inside = |environment: &str| {
            let mut variables = environment.split('\0');
            variables.clone().any(|variable| variable == home)
                && variables.any(|word| word.starts_with("SLURM_JOB_ID="))
        };
        all_processes().into_iter().filter(|(_, _, environment)| inside(environment)).collect()
    }

    /// Process id and command line of each `srun` that holds a connection to a worker.
    pub fn connections(&self) -> Vec<(i32, String)> {
        let config = format!("SLURM_CONF={}", self.config().display());
        let ours = |environment: &str| environment.split('\0').any(|variable| variable == config);
        all_processes()
            .into_iter()
            .filter(|(_, words, environment)| {
                words.starts_with("srun\0") && words.contains("worker attach") && ours(environment)
            })
            .map(|(pid, words, _)| (pid, words))
            .collect()
    }
}

fn all_processes() -> Vec<(i32, String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        all.push((pid, text(read("cmdline")), text(read("environ"))));
    }
    all
}

fn private(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

pub fn kill(pid: i32) {
    // SAFETY: a signal to a process; one that has ended is no error here.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, id) in self.jobs("") {
            self.command("scancel", &[&id]);
        }
        let begin = Instant::now();
        while !self.jobs("").is_empty() && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(100));
        }
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let mark = format!("{MARK}={}", self.folder.path().display());
        for (pid, _, environment) in all_processes() {
            if environment.split('\0').any(|variable| variable == mark) {
                kill(pid);
            }
        }
        for (pid, ..) in self.processes() {
            kill(pid);
        }
    }
}
