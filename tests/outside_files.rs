//! Tests of files from outside: which a script may read, what messages quote of them, and what is
//! not a file or a damaged one.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::interrupt::{ending, start};
use crate::project::{Outcome, Project};

/// Exit code of a program that panicked.
const PANICKED: i32 = 101;

/// A project with the example model and its tokenizer.
fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

fn text(path: &str) -> String {
    format!(
        "let model = load_model(\"model\");
         print(load_tokens(#{{ text: {path:?}, model: model, num_sequences: 1, sequence_length: 4 }}).num_sequences);"
    )
}

/// Runs a script with these words before and after its name.
fn run(project: &Project, before: &[&str], script: &str, after: &[&str]) -> Outcome {
    project.file("script.rhai", script);
    project.run(&[before, &["script.rhai"], after].concat())
}

#[track_caller]
fn refused(outcome: Outcome, message: &str, hint: &str) {
    assert_eq!(outcome.code, 1, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains(message) && outcome.stderr.contains(hint), "{}", outcome.stderr);
}

#[test]
pub fn texts_outside_the_project_are_read_by_no_script() {
    let project = project();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("private.txt").display().to_string();
    std::fs::write(&path, "all that stands here is private to its owner").unwrap();
    project.file("ids.json", "[[1, 2], [3, 4]]").file("text.txt", "To be, or not to be, that is the question.");
    symlink(&path, project.path("harmless.txt")).unwrap();
    let (outside, leads) = ("is outside of the project", "leads out of the project");
    refused(run(&project, &["run"], &text(&path), &[]), outside, "--allow-read");
    refused(run(&project, &["plan"], &text(&path), &[]), outside, "--allow-read");
    refused(run(&project, &["run"], &text("harmless.txt"), &[]), leads, "--allow-read");
    refused(run(&project, &["run"], &text("../../../../../etc/passwd"), &[]), outside, "--allow-read /etc");
    for file in ["/etc/passwd", "/etc/hosts"] {
        let ids = format!("load_tokens(#{{ ids: {file:?} }});");
        refused(run(&project, &["run"], &ids, &[]), outside, "--allow-read /etc");
        let ids = format!("load_tokens(#{{ ids: {file:?}, tensor: \"x\" }});");
        refused(run(&project, &["run"], &ids, &[]), outside, "--allow-read /etc");
    }
    // What is inside is, by whichever name.
    run(&project, &["run"], &text("text.txt"), &[]).ok();
    run(&project, &["run"], &text(&project.path("text.txt").canonicalize().unwrap().display().to_string()), &[]).ok();
    symlink("text.txt", project.path("link.txt")).unwrap();
    run(&project, &["run"], &text("link.txt"), &[]).ok();
}

/// A script cannot find out what the user has, by trying names.
#[test]
pub fn nothing_tells_which_files_there_are_outside_of_the_project() {
    let project = project();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path();
    std::fs::write(folder.join("file.txt"), "x").unwrap();
    std::fs::write(folder.join("closed.txt"), "x").unwrap();
    std::fs::create_dir(folder.join("folder.txt")).unwrap();
    symlink("/etc/passwd", folder.join("leads.txt")).unwrap();
    symlink("nowhere", folder.join("dangles.txt")).unwrap();
    symlink("loops.txt", folder.join("loops.txt")).unwrap();
    let mut told = Vec::new();
    for name in ["file.txt", "none.txt", "folder.txt", "leads.txt", "dangles.txt", "loops.txt", "file.txt/x", "none/x"]
    {
        let path = folder.join(name).display().to_string();
        let calls =
            [format!("read_text({path:?})"), format!("read_json({path:?})"), format!("check_text({path:?})"), {
                format!("load_tokens(#{{ ids: {path:?} }})")
            }];
        for call in calls {
            let script =
                format!("try {{ {call}; print(\"read\"); }} catch (e) {{ print(`${{e.kind}} ${{e.message}}`); }}");
            let said = run(&project, &["run"], &script, &[]).ok();
            told.push(
                said.replace(&path, "PATH")
                    .replace("read_text", "F")
                    .replace("read_json", "F")
                    .replace("load_tokens", "F"),
            );
        }
        let outcome = run(&project, &["run"], &text(&path), &[]);
        refused(
            outcome,
            "is outside of the project",
            &format!("--allow-read {}", Path::new(&path).parent().unwrap().display()),
        );
    }
    assert!(told.iter().all(|said| *said == "bad_argument F: \"PATH\" is outside of the project\n"), "{told:#?}");
    // A link in the project that leads out leads out, whether something is there or not.
    symlink(folder.join("none.txt"), project.path("link.txt")).unwrap();
    refused(run(&project, &["run"], "read_text(\"link.txt\")", &[]), "leads out of the project", "--allow-read");
    // What is missing in the project, and where the user allows it, is missing.
    project.file("script.rhai", "read_text(\"none.txt\")");
    assert!(project.run(&["run", "script.rhai"]).ends(3).stderr.contains("No such file"));
    let words = ["run", "--allow-read", &folder.display().to_string()];
    let script = format!("read_text({:?})", folder.join("none.txt").display().to_string());
    assert!(run(&project, &words, &script, &[]).ends(3).stderr.contains("No such file"));
    // A path of any length is judged.
    for long in ["a/".repeat(1 << 20), "../".repeat(1 << 20), format!("/{}", "b".repeat(1 << 20))] {
        refused(run(&project, &["run"], &format!("read_text({long:?})"), &[]), "the system takes 4096", "not quoted");
    }
}

#[test]
pub fn the_user_says_what_else_is_read() {
    let project = project();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().display().to_string();
    let path = format!("{folder}/corpus.txt");
    std::fs::write(&path, "one text of a corpus on another disk").unwrap();
    run(&project, &["run", "--allow-read", &folder], &text(&path), &[]).ok();
    run(&project, &["run", "--allow-read", "/nowhere", "--allow-read", &path], &text(&path), &[]).ok();
    run(&project, &["plan", "--allow-read", &folder], &text(&path), &[]).ok();
    // A flag of the script is a word of the user's.
    let by_flag = format!("let given = args(#{{ text: \"\" }});\n{}", text("P").replace("\"P\"", "given.text"));
    run(&project, &["run"], &by_flag, &["--text", &path]).ok();
    run(&project, &["run"], &by_flag, &[&format!("--text={path}")]).ok();
    let other = format!("let given = args(#{{ text: \"\" }});\n{}", text(&path));
    refused(run(&project, &["run"], &other, &["--text", &folder]), "is outside of the project", "--allow-read");
    // In tests and at the prompt, too.
    project.file("a_test.rhai", format!("fn test_it() {{ {} }}", text(&path)));
    project.run(&["test", "."]).ends(1);
    project.run(&["test", "--allow-read", &folder, "."]).ok();
    let prompt = |words: &[&str]| {
        let mut command = project.command(words);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let typed = text(&path).replace('\n', " ") + "\n";
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), typed.as_bytes()).unwrap();
        Outcome::of(child.wait_with_output().unwrap())
    };
    assert!(prompt(&["repl"]).stderr.contains("is outside of the project"));
    assert!(prompt(&["repl", "--allow-read", &folder]).ok().contains('1'));
}

#[test]
pub fn files_with_names_of_secrets_are_read_by_no_script() {
    let project = project();
    let key = "a key of forty letters that opens every door";
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().display().to_string();
    for name in [
        ".env",
        ".env.local",
        "id_ed25519",
        "server.pem",
        ".ssh/config",
        ".git/config",
        ".netrc",
        ".aws/x",
        ".netrc-old",
        "creds.json",
    ] {
        project.file(name, key);
        refused(run(&project, &["run"], &text(name), &[]), "has a name that secrets have", "another one");
        let path = format!("{folder}/{name}");
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, key).unwrap();
        // Not even where the user lets scripts read, or names it.
        let outcome = run(&project, &["run", "--allow-read", &folder], &text(&path), &[]);
        refused(outcome, "has a name that secrets have", "another one");
        let by_flag = format!("let given = args(#{{ text: \"\" }});\n{}", text(&path));
        refused(run(&project, &["run"], &by_flag, &["--text", &path]), "has a name that secrets have", "another one");
    }
    symlink(".env", project.path("harmless.txt")).unwrap();
    refused(run(&project, &["run"], &text("harmless.txt"), &[]), "has a name that secrets have", "another one");
    symlink(format!("{folder}/id_ed25519"), project.path("corpus.txt")).unwrap();
    let outcome = run(&project, &["run", "--allow-read", &folder], &text("corpus.txt"), &[]);
    refused(outcome, "has a name that secrets have", "another one");
}

#[test]
pub fn messages_quote_no_files_at_length() {
    let project = project();
    let secret = "c3dvcmRmaXNoOnN3b3JkZmlzaC1hbmQtbXVjaC1tb3JlLW9mLWl0LXRoYW4tZml0cw==";
    // As a tool for containers keeps its passwords.
    let auths = format!(r#""auths": {{"registry": {{"auth": "{secret}"}}}}, "token": "{secret}""#);
    project.file("a/config.json", format!("{{{auths}}}"));
    let config = project.text("model/config.json").replacen('{', &format!("{{{auths},"), 1);
    project.file("b/config.json", config);
    project.file("c/config.json", format!(r#"{{"model_type": "{secret}"}}"#));
    project.file("d/config.json", format!(r#"{{"model_type": "llama", "num_attention_heads": "{secret}"}}"#));
    project.file("ids.json", format!("[[1, \"{secret}\"]]"));
    project.file("lines.jsonl", format!("{{\"text\": {secret}\n"));
    project.file("e/config.json", project.text("model/config.json"));
    project.file("e/tokenizer.json", format!("{{\"version\": \"{secret}{secret}{secret}{secret}\"}}"));
    project.file("f/config.json", "{}").file("f/model.safetensors.index.json", format!("[\"{secret}\"]"));
    for script in [
        "load_model(\"a\")",
        "load_model(\"b\")",
        "load_model(\"c\")",
        "load_model(\"d\")",
        "load_model(\"f\")",
        "estimate_vram(\"b\")",
        "load_tokens(#{ ids: \"ids.json\" })",
        "load_tokens(#{ text: \"lines.jsonl\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 4 })",
    ] {
        let outcome = project.script(&format!("try {{ {script}; }} catch (e) {{ print(e.message); throw e; }}"));
        assert!(outcome.code == 1 || outcome.code == 3, "{script}: {}", outcome.stderr);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains(secret) && !said.contains(&secret[..44]), "{script}: {said}");
    }
}

#[test]
pub fn what_is_no_file_is_not_read() {
    let project = project();
    let pipe = |path: &str| {
        assert!(std::process::Command::new("mkfifo").arg(project.path(path)).status().unwrap().success());
    };
    for name in ["text.txt", "ids.json", "ids.safetensors", "t.jsonl", "t.parquet"] {
        pipe(name);
    }
    project.copy("examples/shakespeare-olmoe", "piped").copy("examples/shakespeare-olmoe", "weights");
    std::fs::remove_file(project.path("piped/config.json")).unwrap();
    pipe("piped/config.json");
    std::fs::remove_file(project.path("weights/model.safetensors")).unwrap();
    pipe("weights/model.safetensors");
    project.file("folder.txt/x", "");
    symlink("/dev/zero", project.path("zero.txt")).unwrap();
    let scripts = [
        text("text.txt"),
        text("t.jsonl"),
        text("t.parquet"),
        text("folder.txt"),
        "load_tokens(#{ ids: \"ids.json\" })".to_string(),
        "load_tokens(#{ ids: \"ids.safetensors\" })".to_string(),
        "load_model(\"piped\")".to_string(),
        "load_model(\"weights\")".to_string(),
    ];
    for script in scripts {
        project.file("script.rhai", &script);
        let outcome = ending(start(&project, &["run", "script.rhai"])).ends(3);
        assert!(outcome.stderr.contains("error: "), "{script}: {}", outcome.stderr);
    }
    // Allowed or not, a device has no end.
    project.file("script.rhai", text("zero.txt"));
    let outcome = ending(start(&project, &["run", "--allow-read", "/dev", "script.rhai"])).ends(3);
    assert!(outcome.stderr.contains("a pipe, socket or device, not a regular file"), "{}", outcome.stderr);
}

/// Ends as an error of a damaged file does.
#[track_caller]
fn told(outcome: &Outcome, what: &str) {
    let panicked = outcome.code == PANICKED || outcome.stderr.contains("panicked");
    assert!(!panicked && [0, 1, 3].contains(&outcome.code), "{what}: {} {}", outcome.code, outcome.stderr);
}

#[test]
pub fn a_damaged_tokenizer_is_an_error() {
    let project = project();
    project.file("text.txt", "To be, or not to be, that is the question: whether it is nobler.");
    let whole = project.text("model/tokenizer.json");
    let decoder = whole.find("\"decoder\"").unwrap();
    for length in [decoder + 12, decoder + 14, decoder + 20, decoder + 30] {
        project.file("model/tokenizer.json", &whole[..length]);
        let outcome = project.script(&text("text.txt")).ends(3);
        told(&outcome, &whole[decoder..length]);
        assert!(outcome.stderr.contains("reading model/tokenizer.json"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("fetch it again"), "{}", outcome.stderr);
    }
    for wrong in ["5", "\"x\"", "[]", "{}", "{\"type\": 5}", "{\"type\": \"Nothing\"}"] {
        for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens", "model"] {
            let mut tokenizer: serde_json::Value = serde_json::from_str(&whole).unwrap();
            tokenizer[part] = serde_json::from_str(wrong).unwrap();
            project.file("model/tokenizer.json", tokenizer.to_string());
            told(&project.script(&text("text.txt")), &format!("{part}: {wrong}"));
        }
    }
    // Characters that become texts of characters that become texts.
    let longer = json!({ "type": "Replace", "pattern": { "String": "o" }, "content": "o".repeat(1000) });
    let mut tokenizer: serde_json::Value = serde_json::from_str(&whole).unwrap();
    tokenizer["normalizer"] = json!({ "type": "Sequence", "normalizers": [longer, longer, longer, longer] });
    project.file("model/tokenizer.json", tokenizer.to_string());
    let outcome = project.script(&text("text.txt")).ends(3);
    assert!(outcome.stderr.contains("grow without end"), "{}", outcome.stderr);
    let deep = format!(
        "{}\"type\": \"ByteLevel\"{}",
        "{\"type\": \"Sequence\", \"decoders\": [{".repeat(50_000),
        "}]}".repeat(50_000)
    );
    project.file("model/tokenizer.json", format!("{{\"version\": \"1.0\", \"decoder\": {deep}}}"));
    told(&project.script(&text("text.txt")), "nested without end");
}

/// Numbers from a seed, for damage that is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % most
    }
}

#[test]
pub fn a_damaged_parquet_file_is_an_error() {
    let project = project();
    let rows = "let rows = []; for i in 0..200 { rows.push(#{ text: \"To be or not to be \" + i, n: i }); }
                write_table(\"results/t.parquet\", rows);";
    project.script(rows).ok();
    let whole = project.bytes("results/t.parquet");
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
    project.file("t.parquet", &whole);
    project.script(&text("t.parquet")).ok();
    let mut dice = Dice(7);
    for round in 0..80 {
        let mut damaged = whole.clone();
        let from = if round % 2 == 0 { whole.len() - 8 - footer } else { 4 };
        for _ in 0..1 + dice.below(3) {
            let at = from + dice.below(whole.len() - 8 - from);
            damaged[at] = [0, 1, 0x7f, 0x80, 0xff, dice.below(256) as u8][dice.below(6)];
        }
        project.file("t.parquet", &damaged);
        told(&project.script(&text("t.parquet")), &format!("round {round}"));
    }
    // A schema of groups in groups: in Thrift, name "x" and one member each, 200,000 deep.
    let mut schema = vec![0x15, 0x02, 0x19, 0xfc];
    schema.extend([0xc0, 0x9a, 0x0c]);
    for _ in 0..200_000 {
        schema.extend([0x35, 0x00, 0x18, 1, b'x', 0x15, 0x02, 0x00]);
    }
    schema.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
    let mut nested = b"PAR1".to_vec();
    nested.extend(&schema);
    nested.extend((schema.len() as u32).to_le_bytes());
    nested.extend(b"PAR1");
    project.file("t.parquet", nested);
    project.script(&text("t.parquet")).ends(3);
}

#[test]
fn lines_nested_without_end_are_an_error() {
    let project = project();
    for line in ["[".repeat(200_000), "{\"text\":".repeat(200_000), format!("{{\"text\": {}", "[".repeat(200_000))] {
        project.file("t.jsonl", &line).file("ids.json", &line);
        project.script(&text("t.jsonl")).ends(3);
        project.script("load_tokens(#{ ids: \"ids.json\" })").ends(3);
    }
}

#[test]
fn links_in_a_project_give_nothing_away() {
    let project = project();
    let elsewhere = tempfile::tempdir().unwrap();
    let private = elsewhere.path().join("private");
    std::fs::write(&private, "swordfish is the password\n").unwrap();
    project.file("logs/own.log", "no time at all\n2026-01-01T00:00:00Z it went well\n").file("stdlib/x", "");
    symlink(&private, project.path("logs/link.log")).unwrap();
    symlink(&private, project.path("stdlib/report.html")).unwrap();
    project.file(".env", "SWORDFISH=swordfish");
    symlink("../.env", project.path("logs/env.log")).unwrap();
    let script = "print(last_logged(\"link\")); print(last_logged(\"env\")); print(stdlib_text(\"report.html\"));
                  print(last_logged(\"own\").text);";
    let said = project.script(script).ok();
    assert!(!said.contains("swordfish") && said.contains("it went well"), "{said}");
    project.file("logs/own.log", "swordfish is no time\n");
    assert_eq!(project.script("print(last_logged(\"own\"));").ok().trim(), "");
}

#[test]
pub fn copies_and_relatives_of_secrets_are_no_texts() {
    let project = Project::new();
    for name in [
        "id_rsa.bak",
        "prod.env",
        "deploy_key",
        "secrets.json",
        "service-account.json",
        "terraform.tfstate",
        ".bash_history",
        ".config/gh/hosts.yml",
    ] {
        project.file(name, "hush");
        let message = format!("{name:?} has a name that secrets have");
        project.refuses(&format!("check_text({name:?})"), 1, &message, "needs another one");
    }
    for name in ["tokens.txt", "secrets_of_the_sea.txt", "environment.txt", "key_results.csv"] {
        project.file(name, "text");
        assert_eq!(project.script(&format!("print(check_text({name:?}))")).ok(), "4\n");
    }
}

#[test]
fn what_is_refused_for_its_name_is_told_so() {
    let message = "write_text: \"results/id_rsa\" has a name that secrets have";
    let hint = "keys, tokens and passwords are written by no script";
    Project::new().refuses("write_text(\"results/id_rsa\", \"x\")", 1, message, hint);
    Project::new().refuses("eval(\"1\")", 1, "'eval' is disabled", "only the code that is written in it");
}
