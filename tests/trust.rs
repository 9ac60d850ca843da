//! Tests of machines that lie, scripts that choose whom to trust, and other users who share a home
//! folder or a ledger.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fake_runpod::FakeRunPod;
use crate::project::{Outcome, Project, stripped};
use crate::runpod;
use crate::sshd::Sshd;

const LOCALHOST: &str = "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"localhost\" });\n";

/// A machine with commands of its own: this computer with another home folder, and with programs
/// that come first on the path.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.bin()).unwrap();
        machine
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// A program there: lines for `sh`.
    fn program(&self, name: &str, text: &str) -> &Self {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn path_variable(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.bin().display())
    }

    fn command(&self, project: &Project, script: &str) -> Command {
        project.file("script.rhai", format!("{LOCALHOST}{script}"));
        let mut command = project.command(&["run", "--allow-commands", "script.rhai"]);
        command.env("HOME", self.home()).env("PATH", self.path_variable()).env("OUTLIER_WORKER", stripped());
        command
    }

    fn run(&self, project: &Project, script: &str) -> Outcome {
        Outcome::of(self.command(project, script).output().unwrap())
    }
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(300), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes `find` list these names there, with the given contents.
fn listing(machine: &Machine, names: &[&str]) {
    let lines: String = names.iter().map(|name| format!("printf '%s\\0' '{name}'\n")).collect();
    machine.program("find", &lines);
}

#[test]
pub fn a_machine_writes_only_what_was_asked_for() {
    for name in [".env", ".git/config", "stdlib/deploy.rhai", "../x", "/tmp/outlier_trust_test", "results2/a", "a.txt"]
    {
        let (machine, project) = (Machine::new(), Project::new());
        project.file(".git/config", "mine").file("a.txt", "mine");
        // The file is there, wherever the name leads.
        let make = format!(
            "gpu.run_command(\"mkdir -p results stdlib .git results2; for f in {name} results/x; do echo theirs > $f; done\");\n"
        );
        machine.run(&project, &format!("{make}gpu.terminate();")).ends(0);
        let _ = fs::remove_file("/tmp/outlier_trust_test");
        listing(&machine, &["./results/x", name]);
        let outcome = machine.run(&project, "gpu.sync(#{ down: \"results\" });");
        assert_ne!(outcome.code, 0, "{name}");
        assert!(
            outcome.stderr.contains("which is not at \\\"results\\\"")
                || outcome.stderr.contains("which is not at \"results\""),
            "{}",
            outcome.stderr
        );
        assert_eq!(
            (project.text(".git/config"), project.text("a.txt")),
            ("mine".to_string(), "mine".to_string()),
            "{name}"
        );
        for path in [".env", "stdlib", "../x", "results2", "results/x"] {
            assert!(!project.has(path), "{name} made {path}");
        }
        assert!(!Path::new("/tmp/outlier_trust_test").exists());
    }
}

#[test]
pub fn what_is_secret_or_run_here_is_not_fetched() {
    let (machine, project) = (Machine::new(), Project::new());
    project
        .file("stdlib/mine.rhai", "fn f() { 1 }")
        .file(".env", "mine")
        .file("Makefile", "mine")
        .file("scripts/a.rhai", "1");
    let names =
        ["stdlib/mine.rhai", "scripts/a.rhai", ".env", "Makefile", "x/id_ed25519", "x/b.rhai", "results/gpus.sqlite"];
    let make = "gpu.run_command(\"mkdir -p stdlib scripts x results; for f in stdlib/mine.rhai scripts/a.rhai .env Makefile \
                x/id_ed25519 x/b.rhai results/gpus.sqlite x/good.txt; do echo theirs > $f; done\");\n";
    let tries = names.map(|name| {
        format!(
            "try {{ gpu.sync(#{{ down: \"{name}\" }}); print(\"DONE {name}\"); }} catch (e) {{ print(e.message); }}\n\
             try {{ gpu.download(\"{name}\", \"{name}\"); print(\"DONE {name}\"); }} catch (e) {{ print(e.message); }}\n"
        )
    });
    let folders = "print(gpu.sync(#{ down: [\"x\", \"*/good.txt\"] }).files_received);";
    let outcome = machine.run(&project, &format!("{make}{}{folders}", tries.concat())).ends(0);
    assert!(!outcome.stdout.contains("DONE"), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.matches("is not accepted from a machine").count(), 2 * names.len(), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("\n1\n"), "what is harmless in a folder comes\n{}", outcome.stdout);
    assert!(outcome.stderr.contains("\"x/id_ed25519\" is not accepted from a machine: left out"), "{}", outcome.stderr);
    assert_eq!(project.text("stdlib/mine.rhai"), "fn f() { 1 }");
    assert_eq!((project.text(".env"), project.text("Makefile")), ("mine".to_string(), "mine".to_string()));
    assert_eq!(project.files("x"), ["good.txt"]);
}

#[test]
pub fn a_name_is_no_option() {
    let (machine, project) = (Machine::new(), Project::new());
    project.file("-rf", "sent").file("--help", "sent");
    let script = r#"
        gpu.run_command("echo kept > kept.txt; mkdir -p -- -exec; echo back > ./-exec/back.txt");
        try { gpu.sync(#{ down: "-delete" }); } catch (e) { print(e.kind); }
        print(gpu.sync(#{ up: ["-rf", "--help"] }).files_sent);
        gpu.upload("-rf", "-i");
        gpu.download("-i", "back.txt");
        print(gpu.sync(#{ down: "-exec" }).files_received);
        print(gpu.run_command("cat kept.txt ./-rf ./--help ./-i").out);
    "#;
    let outcome = machine.run(&project, script).ends(0);
    assert_eq!(outcome.stdout, "not_found\n2\n1\nkept\nsentsentsent\n", "{}", outcome.stderr);
    assert_eq!((project.text("-exec/back.txt"), project.text("back.txt")), ("back\n".to_string(), "sent".to_string()));
}

#[test]
pub fn links_are_judged_by_where_they_lead() {
    let (machine, project, outside) = (Machine::new(), Project::new(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("theirs"), "other people's").unwrap();
    project
        .file(".env", "HF_TOKEN=hf_x")
        .file("data/good", "good")
        .file(".git/hooks/x", "x")
        .file("data/deep/good", "good");
    symlink("../.env", project.path("data/notes.txt")).unwrap();
    symlink("../.git", project.path("data/folder")).unwrap();
    symlink("good", project.path("data/also")).unwrap();
    symlink("..", project.path("data/deep/loop")).unwrap();
    symlink(outside.path().join("theirs"), project.path("out.txt")).unwrap();
    // What comes back is not written through links either.
    symlink(outside.path(), project.path("away")).unwrap();
    symlink(".git/hooks", project.path("hooks")).unwrap();
    std::fs::create_dir(project.path("results")).unwrap();
    symlink(outside.path().join("theirs"), project.path("results/kept.txt.part")).unwrap();
    symlink(outside.path().join("theirs"), project.path("results/kept.txt")).unwrap();
    let refused = |call: &str| {
        format!("try {{ {call}; print(\"DONE {}\"); }} catch (e) {{ print(\"refused\"); }}\n", call.replace('"', "'"))
    };
    let calls = [
        "gpu.upload(\"data/notes.txt\", \"n\")",
        "gpu.upload(\"data/folder/hooks/x\", \"n\")",
        "gpu.upload(\"out.txt\", \"n\")",
        "gpu.sync(#{ up: \"out.txt\" })",
        "gpu.sync(#{ up: \"data/notes.txt\" })",
        "gpu.sync(#{ down: \"away\" })",
        "gpu.sync(#{ down: \"hooks\" })",
        "gpu.download(\"away/theirs\", \"away/theirs\")",
        "gpu.download(\"away/theirs\", \"hooks/y\")",
    ];
    let script = format!(
        "gpu.run_command(\"mkdir -p away hooks; echo new > away/theirs; echo new > hooks/y\");\n{}\
         print(gpu.sync(#{{ up: \"data\" }}).files_sent);\n\
         print(gpu.run_command(\"find data -type f | sort\").out);\n\
         gpu.download(\"away/theirs\", \"results/kept.txt\");",
        calls.map(refused).concat()
    );
    let outcome = machine.run(&project, &script).ends(0);
    assert!(!outcome.stdout.contains("DONE"), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.matches("refused").count(), calls.len(), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("\n3\ndata/also\ndata/deep/good\ndata/good\n\n"), "{}", outcome.stdout);
    assert_eq!(fs::read_to_string(outside.path().join("theirs")).unwrap(), "other people's");
    assert!(!project.has(".git/hooks/y"));
    assert_eq!(project.text("results/kept.txt"), "new\n", "the link gave way to the file");
}

#[test]
fn more_than_was_announced_is_not_taken() {
    let (machine, project) = (Machine::new(), Project::new());
    machine.program("tail", "head -c 200000000 /dev/zero");
    let outcome = machine.run(&project, "gpu.run_command(\"echo x > x\"); gpu.download(\"x\", \"y\");").ends(3);
    assert!(outcome.stderr.contains("is longer than the 2 bytes that were announced"), "{}", outcome.stderr);
    let outcome = machine.run(&project, "gpu.run_command(\"head -c 200000000 /dev/zero\");").ends(3);
    assert!(outcome.stderr.contains("a command wrote more than 64 MiB and was ended"), "{}", outcome.stderr);
}

/// A script takes the fingerprint from the refusal, or writes the key itself, and logs in with it.
fn vouching(sshd: &Sshd) -> String {
    let (host, key) = (sshd.target(), sshd.key_file());
    let public = fs::read_to_string(sshd.path("host.pub")).unwrap();
    let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    format!(
        r#"
        args(#{{ any: "" }});
        let options = #{{ provider: "ssh", host: "{host}", key: "{}" }};
        let fingerprint = "";
        try {{ provision_gpu(options); }} catch (e) {{
            print(e.message);
            let begin = e.message.index_of("SHA256:");
            fingerprint = e.message.sub_string(begin, 50);
        }}
        write_text("results/hosts", "[127.0.0.1]:{} {public}\n");
        for more in [#{{ fingerprint: fingerprint }}, #{{ known_hosts: "results/hosts" }}] {{
            try {{
                let gpu = provision_gpu(options + more);
                print("IN");
                gpu.run_command("touch $HOME/made");
            }} catch (e) {{ print(e.message); }}
        }}
        "#,
        key.display(),
        sshd.port,
    )
}

#[test]
pub fn a_script_cannot_vouch_for_a_machine() {
    let sshd = Sshd::start();
    let project = Project::new();
    let outcome = project.script(&vouching(&sshd)).ends(0);
    assert_eq!(outcome.stdout.matches("its host key is").count(), 3, "{}{}", outcome.stdout, outcome.stderr);
    assert!(!outcome.stdout.contains("IN") && !sshd.home().join("made").exists(), "{}", outcome.stdout);
    // Its user can: for this host, and not for another.
    let words = |host: &str| [format!("{host}={}", sshd.fingerprint())];
    let run = |named: &str| project.run(&["run", "--host-key", named, "script.rhai"]).ends(0);
    let outcome = run(&words("192.0.2.1")[0]);
    assert!(!outcome.stdout.contains("IN"), "{}", outcome.stdout);
    let outcome = run(&words("127.0.0.1")[0]);
    assert!(outcome.stdout.contains("IN"), "{}{}", outcome.stdout, outcome.stderr);
    // What stands among the flags of the script was written by its user.
    let outcome = project.run(&["run", "script.rhai", &format!("--any={}", sshd.fingerprint())]).ends(0);
    assert!(outcome.stdout.contains("IN"), "{}{}", outcome.stdout, outcome.stderr);
    let outcome = project.run(&["run", "--host-key", "SHA256:short", "script.rhai"]).ends(2);
    assert!(outcome.stderr.contains("ssh-keygen -lf"), "{}", outcome.stderr);
}

#[test]
pub fn this_computer_is_this_computer_under_every_name() {
    let sshd = Sshd::start();
    let user = sshd.target();
    let user = user.split('@').next().unwrap();
    let project = Project::trusting(&sshd.fingerprint());
    for host in ["127.0.0.1", "127.1", "0.0.0.0", "localhost"] {
        let script = format!(
            r#"
            let gpu = provision_gpu(#{{ provider: "ssh", host: "{user}@{host}:{}", key: "{}", fingerprint: "{}" }});
            try {{ gpu.run_command("touch $HOME/made"); print("DONE"); }} catch (e) {{ print(e.message); }}
            try {{ gpu.upload("script.rhai", "/tmp/outlier_trust_test_2"); print("DONE"); }} catch (e) {{ print(e.message); }}
            try {{ gpu.download("/etc/hostname", "x"); print("DONE"); }} catch (e) {{ print(e.message); }}
            "#,
            sshd.port,
            sshd.key_file().display(),
            sshd.fingerprint()
        );
        project.file("script.rhai", &script);
        let outcome = project.run(&["run", "script.rhai"]).ends(0);
        assert!(
            outcome.stdout.contains("commands do not run on this machine"),
            "{host}: {}{}",
            outcome.stdout,
            outcome.stderr
        );
        assert_eq!(outcome.stdout.matches("is not inside the project").count(), 2, "{host}: {}", outcome.stdout);
        assert!(!outcome.stdout.contains("DONE") && !sshd.home().join("made").exists());
    }
    // With the user's leave.
    let outcome = project.run(&["run", "--allow-commands", "script.rhai"]).ends(0);
    assert_eq!(outcome.stdout.matches("DONE").count(), 3, "{}", outcome.stdout);
    assert!(sshd.home().join("made").exists());
    let _ = fs::remove_file("/tmp/outlier_trust_test_2");
}

/// Two clients send the program to one home folder at the same time.
#[test]
fn two_who_send_the_program_do_not_meet() {
    let machine = Machine::new();
    // Each begins to write only when the other does.
    machine.program(
        "cat",
        "[ $# -gt 0 ] && exec /bin/cat \"$@\"\nmkdir -p $HOME/met; touch $HOME/met/$$\n\
         n=0; while [ $(ls $HOME/met | wc -l) -lt 2 ] && [ $n -lt 3000 ]; do sleep 0.1; n=$((n + 1)); done\nexec /bin/cat",
    );
    let projects = [Project::new(), Project::new()];
    let children = projects.each_ref().map(|project| {
        let mut command = machine.command(project, "print(gpu.id);");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for child in children {
        let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
        assert!(!outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    }
    let programs = fs::read_dir(machine.home().join(".outlier/bin")).unwrap().next().unwrap().unwrap();
    let left: Vec<_> = fs::read_dir(programs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["outlier"], "nothing unfinished is left");
}

/// The connection breaks while the program is sent, then the run does. Then the program arrives,
/// and nothing is sent twice.
#[test]
fn a_broken_upload_goes_on() {
    let machine = Machine::new();
    let sshd = Sshd::start_with(&[("PATH", &machine.path_variable())]);
    // The first time the connection breaks after a million bytes; later it is counted what comes.
    machine.program(
        "cat",
        "[ $# -gt 0 ] && exec /bin/cat \"$@\"\n\
         if [ ! -e $HOME/broken ]; then\n\
           touch $HOME/broken; head -c 1000000; p=$PPID\n\
           while ! grep -q '^sshd' /proc/$p/comm; do p=$(awk '{ print $4 }' /proc/$p/stat); done\n\
           kill -9 $p; sleep 1000\n\
         fi\n\
         tee $HOME/rest.part && mv $HOME/rest.part $HOME/rest",
    );
    let project = Project::trusting(&sshd.fingerprint());
    project.file(
        "script.rhai",
        format!(
            "let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"{}\", key: \"{}\", fingerprint: \"{}\" }}); print(\"up\");",
            sshd.target(),
            sshd.key_file().display(),
            sshd.fingerprint()
        ),
    );
    let mut command = project.command(&["run", "script.rhai"]);
    let outcome = Outcome::of(command.env("OUTLIER_WORKER", stripped()).output().unwrap()).ends(0);
    assert!(outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "up\n");
    let (whole, rest) = (stripped().metadata().unwrap().len(), sshd.home().join("rest").metadata().unwrap().len());
    assert!(rest <= whole - 1_000_000, "{rest} of {whole} bytes came after the break");
}

/// Two runs in one project fetch the same file at the same time.
#[test]
fn two_who_fetch_a_file_do_not_meet() {
    let (machine, project) = (Machine::new(), Project::new());
    machine.run(&project, "gpu.run_command(\"head -c 3000000 /dev/urandom > x\");").ends(0);
    machine.program(
        "tail",
        "mkdir -p $HOME/met; touch $HOME/met/$$\n\
         n=0; while [ $(ls $HOME/met | wc -l) -lt 2 ] && [ $n -lt 3000 ]; do sleep 0.1; n=$((n + 1)); done\n\
         exec /usr/bin/tail \"$@\"",
    );
    let commands = [(); 2].map(|()| machine.command(&project, "gpu.download(\"x\", \"x\");"));
    let children = commands.map(|mut command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    for child in children {
        let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
        assert!(!outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    }
    assert_eq!(project.bytes("x").len(), 3_000_000);
    assert!(!project.has("x.part") && !project.has("x.1.part"));
}

/// A run in a container shares the project. Its process cannot be seen from here.
#[test]
pub fn a_run_in_another_container_keeps_its_machine() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let provision = "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", task: \"t\" }); print(gpu.id);";
    project.file("script.rhai", format!("{provision} loop {{ sleep(1); }}"));
    let inside = runpod::command(&project, &fake, &["run", "script.rhai"]);
    let mut container = Command::new("unshare");
    container
        .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
        .arg(inside.get_program())
        .args(inside.get_args());
    container.current_dir(inside.get_current_dir().unwrap());
    for (name, value) in inside.get_envs() {
        match value {
            Some(value) => container.env(name, value),
            None => container.env_remove(name),
        };
    }
    let mut child = container.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut id, mut byte) = (Vec::new(), [0]);
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        id.push(byte[0]);
    }
    let id = String::from_utf8(id).unwrap();
    let gpus =
        |words: &[&str]| Outcome::of(runpod::command(&project, &fake, &[&["gpus"], words].concat()).output().unwrap());
    let alive = || fake.alive().len();
    assert_eq!(alive(), 1, "{id}");
    let listed = gpus(&[]).ok();
    assert!(listed.contains("process") && !listed.contains("died"), "{listed}");
    let said = gpus(&["reap"]).ok();
    assert!(
        said.contains(&format!("{id} (NVIDIA A40) is in the care of process")) && said.contains("left alone"),
        "{said}"
    );
    assert_eq!(alive(), 1);
    // Another run neither clears it up nor takes it over.
    project.file("other.rhai", format!("{provision} terminate_left_over(\"t\");"));
    let outcome = Outcome::of(runpod::command(&project, &fake, &["run", "other.rhai"]).output().unwrap()).ends(0);
    assert_ne!(outcome.stdout.trim(), id);
    assert_eq!((alive(), fake.created()), (1, 2), "{}", outcome.stderr);
    // Its user may end it all the same, and is told.
    let said = gpus(&["terminate", &id]).ok();
    assert!(said.contains("is given back") && said.contains("it was in the care of process"), "{said}");
    wait_for("its end", || alive() == 0);
    child.kill().unwrap();
    child.wait().unwrap();
}
