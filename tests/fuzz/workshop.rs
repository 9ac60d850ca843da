//! The valid inputs from which all cases are made. The project makes them when a run begins:
//! models, a record, a checkpoint, a table, and the messages of a worker and its client.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outlier::outside::json::replaced_no_numbers;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::frames;
use crate::mutate::MARK;
use crate::process::{self, End, Start};

/// Base inputs are made within this time each, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);
/// The trained model, by the name of its folder here.
pub const TRAINED: &str = "shakespeare-olmoe";
pub const TEXT: &str = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n";

const RECORD: &str = r#"
    let model = load_model("m");
    let acts = model.extract_layernorms(load_tokens(#{ ids: [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]] }),
        #{ thresholds: [0.5, 1.0, 2.5], logits: true });
    save_results("first", #{ activations: acts, found: acts.detect_outliers(#{ magnitude_threshold: 1.0 }),
        intervals: acts.bootstrap_ci(#{ magnitude_threshold: 1.0, n_resamples: 100 }) });
"#;

/// Work with states between layers.
pub const RESUMED: &str = r#"
    let model = load_model("m");
    let ids = [];
    for s in 0..8 { let row = []; for i in 0..256 { row.push((i * 7 + s * 13) % 500); } ids.push(row); }
    let acts = model.extract_layernorms(load_tokens(#{ ids: ids }), #{ thresholds: [0.5, 2.5], checkpoint: "ck", checkpoint_layers: 1 });
    print(acts.detect_outliers(#{ magnitude_threshold: 2.5 }).num_features);
"#;

const TABLE: &str = r#"
    let rows = [];
    for i in 0..200 { rows.push(#{ text: "To be or not to be that is the question " + i, n: i }); }
    write_table("results/t.parquet", rows);
"#;

pub struct Workshop {
    root: TempDir,
    pub program: PathBuf,
    /// Folders of small models, one of each architecture.
    pub models: Vec<String>,
    /// Folders of small models in quantised weights, one of each format.
    pub quantised: Vec<String>,
    /// Of the first those with an index of several files.
    pub indexed: Vec<String>,
    /// `outlier doc --markdown`.
    pub documentation: String,
    /// Scripts of the project: where they are in it, and their text.
    pub scripts: Vec<(String, String)>,
    /// A state that a run left when it was killed.
    pub checkpoint: Vec<u8>,
    pub table: Vec<u8>,
    /// `tokenizer.json` of the trained model.
    pub tokenizer: Value,
    pub talk: frames::Talk,
    /// Words of the command line.
    pub words: Vec<String>,
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// A JSON file. Numbers that JSON does not have (`Infinity` in configs that Python wrote) stand behind `MARK`, so that
/// `mutate::text` writes them as they were.
pub fn read_json(path: impl AsRef<Path>) -> Value {
    let text = read(&path);
    let marked = replaced_no_numbers(&text, |word| json!(format!("{MARK}{word}")).to_string()).unwrap_or(text);
    serde_json::from_slice(&marked).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

pub fn write(path: impl AsRef<Path>, data: impl AsRef<[u8]>) {
    let path = path.as_ref();
    // Whatever has this name may be a link to what all cases share.
    let _ = std::fs::remove_file(path);
    std::fs::write(path, data).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The files of a folder as links: they must be replaced, not changed.
pub fn link(from: &Path, to: &Path) {
    each(from, to, &|from, to| std::fs::hard_link(from, to));
}

pub fn copy(from: &Path, to: &Path) {
    each(from, to, &|from, to| std::fs::copy(from, to).map(drop));
}

fn each(from: &Path, to: &Path, act: &dyn Fn(&Path, &Path) -> std::io::Result<()>) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => each(&path, &target, act),
            false => act(&path, &target).unwrap_or_else(|e| panic!("{}: {e}", target.display())),
        }
    }
}

impl Workshop {
    pub fn open(program: &Path) -> Self {
        let root = tempfile::Builder::new().prefix("fuzz").tempdir().unwrap();
        let mut workshop = Self {
            root,
            program: program.to_path_buf(),
            models: Vec::new(),
            quantised: Vec::new(),
            indexed: Vec::new(),
            documentation: String::new(),
            scripts: Vec::new(),
            checkpoint: Vec::new(),
            table: Vec::new(),
            tokenizer: Value::Null,
            talk: frames::Talk::default(),
            words: Vec::new(),
        };
        workshop.bring_models();
        workshop.bring_project();
        workshop.make_results();
        workshop.make_checkpoint();
        workshop.listen();
        workshop
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn model(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join("models").join(name)
    }

    /// The folder of a project with scripts, and results in `first`.
    pub fn project(&self) -> PathBuf {
        self.root().join("project")
    }

    fn bring_models(&mut self) {
        let folders = |place: &str| {
            let place = repository().join(place);
            let mut names: Vec<_> = crate::names(&place)
                .into_iter()
                .filter(|name| place.join(name).join("config.json").is_file())
                .collect();
            names.sort();
            names
        };
        let (names, quantised) = (folders("tests/fixtures"), folders("tests/fixtures_quantised"));
        let of = |place: &'static str| move |name: &String| (name.clone(), repository().join(place).join(name));
        for (name, from) in names
            .iter()
            .map(of("tests/fixtures"))
            .chain(quantised.iter().map(of("tests/fixtures_quantised")))
            .chain([of("examples")(&TRAINED.to_string())])
        {
            copy(&from, &self.model(&name));
            for expected in ["decoded.json", "expected.json", "reference.safetensors", "thresholds.json"] {
                let _ =
                    std::fs::rename(self.model(&name).join(expected), self.root().join(format!("{name}-{expected}")));
            }
        }
        self.indexed = names
            .iter()
            .filter(|name| self.model(name).join("model.safetensors.index.json").exists())
            .cloned()
            .collect();
        self.models = names;
        self.quantised = quantised;
        self.tokenizer = read_json(self.model(TRAINED).join("tokenizer.json"));
    }

    fn bring_project(&mut self) {
        for folder in ["scripts", "stdlib", "examples"] {
            let to = self.project().join(folder);
            std::fs::create_dir_all(&to).unwrap();
            let from = repository().join(folder);
            let mut names = crate::names(&from);
            names.sort();
            for name in names.into_iter().filter(|name| from.join(name).is_file()) {
                std::fs::copy(from.join(&name), to.join(&name)).unwrap();
                if name.ends_with(".rhai") {
                    self.scripts.push((format!("{folder}/{name}"), String::from_utf8(read(from.join(&name))).unwrap()));
                }
            }
        }
        link(&self.model(TRAINED), &self.project().join("examples").join(TRAINED));
        self.documentation = self.tells(&["doc", "--markdown"]);
        let mut mistakes = crate::names(&repository().join("tests/mistakes"));
        mistakes.sort();
        for name in mistakes.into_iter().filter(|name| name.ends_with(".rhai")) {
            let text = String::from_utf8(read(repository().join("tests/mistakes").join(&name))).unwrap();
            self.scripts.push((format!("scripts/{name}"), text));
        }
        for (number, example) in self.documentation.split("```rhai\n").skip(1).enumerate() {
            let example = example.split("```").next().unwrap_or_default();
            if !example.contains(" -> ") {
                self.scripts.push((format!("documentation_{number}.rhai"), example.to_string()));
            }
        }
        let first_words = |text: &str| -> Vec<String> {
            let commands = text.split("Commands:").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
            let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
            names.filter(|name| !name.is_empty()).map(str::to_string).collect()
        };
        let main = self.tells(&["--help"]);
        let commands = first_words(&main);
        let mut words = commands.clone();
        for command in commands.iter().chain([&"worker".to_string()]).filter(|command| *command != "help") {
            let help = self.tells(&[command, "--help"]);
            words.extend(
                help.split_whitespace()
                    .filter(|word| word.starts_with("--"))
                    .map(|word| word.trim_matches([',', '.', '`', ']']).to_string()),
            );
            words.extend(first_words(&help));
        }
        words.sort();
        words.dedup();
        self.words = words;
    }

    /// Runs the program in `folder` of the root, which must go well.
    fn runs(&self, folder: &str, words: &[&str]) -> String {
        let folder = self.root().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let ended = process::run(&self.program, &folder, Start::of(words), PATIENCE);
        assert!(ended.end == End::Code(0), "{words:?}: {:?}\n{}", ended.end, ended.errors);
        ended.output
    }

    fn tells(&self, words: &[&str]) -> String {
        let output =
            Command::new(&self.program).args(words).current_dir(self.root()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn script(&self, folder: &str, model: &str, text: &str) {
        let folder = self.root().join(folder);
        link(&self.model(model), &folder.join("m"));
        write(folder.join("s.rhai"), text);
    }

    fn make_results(&mut self) {
        self.script("record", "olmoe", RECORD);
        self.runs("record", &["run", "s.rhai"]);
        link(&self.root().join("record/results"), &self.project().join("results"));
        self.script("table", TRAINED, TABLE);
        self.runs("table", &["run", "s.rhai"]);
        self.table = read(self.root().join("table/results/t.parquet"));
    }

    /// Kills a run as soon as it has left a state.
    fn make_checkpoint(&mut self) {
        self.script("resumed", TRAINED, RESUMED);
        let folder = self.root().join("resumed");
        for _ in 0..30 {
            let mut command = Command::new(&self.program);
            command
                .args(["run", "s.rhai"])
                .current_dir(&folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let begin = Instant::now();
            while child.try_wait().unwrap().is_none() && begin.elapsed() < PATIENCE {
                if let Ok(state) = std::fs::read(folder.join("ck")) {
                    let _ = child.kill();
                    let _ = child.wait();
                    self.checkpoint = state;
                    return;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("no run left a checkpoint");
    }

    /// Takes down what a client and a worker say to each other in some honest work.
    fn listen(&mut self) {
        let folder = self.root().join("listened");
        std::fs::create_dir_all(folder.join("said")).unwrap();
        let tap = format!(
            "#!/bin/sh\ncase \"$*\" in\n*attach*) tee {said}/up.$$ | {program} \"$@\" | tee {said}/down.$$;;\n*) exec {program} \"$@\";;\nesac\n",
            said = folder.join("said").display(),
            program = self.program.display()
        );
        write(folder.join("tap"), tap);
        executable(&folder.join("tap"));
        let model = self.model("olmoe").display().to_string();
        write(folder.join("s.rhai"), crate::wire::work(&model, &self.model(TRAINED).display().to_string()));
        write(folder.join("t.txt"), TEXT.repeat(20));
        let start = Start { leaves_processes: true, ..Start::of(&["run", "s.rhai"]) };
        let ended =
            process::run(&self.program, &folder, start.variable("OUTLIER_WORKER", folder.join("tap")), PATIENCE);
        assert!(ended.end == End::Code(0), "the listened run: {:?}\n{}", ended.end, ended.errors);
        self.talk = frames::Talk::heard(&folder.join("said"));
        assert!(self.talk.answers.len() >= 4, "too little was said: {:?}", self.talk.answers.keys());
        write(self.root().join("talk.json"), serde_json::to_vec(&self.talk.to_json()).unwrap());
        let this = std::env::current_exe().unwrap();
        let hostile = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec {} --version\nexec {}\n",
            self.program.display(),
            this.display()
        );
        write(self.root().join("hostile"), hostile);
        executable(&self.root().join("hostile"));
    }
}

pub fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
