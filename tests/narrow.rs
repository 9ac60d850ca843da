//! Tests that nothing is wider than the terminal: tables leave out columns and name them,
//! sentences, errors and help are broken between words, and bars leave out parts. A pipe gets
//! everything.

use crate::fake_runpod::FakeRunPod;
use crate::project::{Project, repository};
use crate::runpod;
use crate::terminal::{at_terminal, drawn, on_screen, too_wide};

/// A project with analyses of models with long names, and a few scripts.
fn project() -> Project {
    let project = Project::new();
    project.copy("scripts", "scripts").copy("examples", "examples");
    project.copy("tests/fixtures/mixtral", "mixtral").copy("tests/fixtures/llama", "llama");
    let save = r#"
        for name in ["mixtral", "llama"] {
            let acts = load_model(name).extract_layernorms(load_tokens(#{ ids: name + "/reference.safetensors" }), #{ logits: true });
            let criterion = #{ magnitude_threshold: 3.0, min_seq_percentage: 0.01, min_layer_percentage: 0.1 };
            save_results(name + "_with_a_name_of_some_length", #{ activations: acts, found: acts.detect_outliers(criterion),
                intervals: acts.bootstrap_ci(criterion + #{ n_resamples: 100 }) });
        }
    "#;
    project.script(save).ok();
    project
}

#[track_caller]
fn fits(project: &Project, words: &[&str], input: &str) -> String {
    shown(project.command(words), words, input)
}

#[track_caller]
fn shown(command: std::process::Command, words: &[&str], input: &str) -> String {
    let (code, lines) = at_terminal(command, 80, input);
    let text = lines.join("\n");
    assert_eq!(code, 0, "{words:?}\n{text}");
    assert!(too_wide(&lines, 80).is_empty(), "{words:?}\n{text}");
    assert!(text.contains('│'), "there is a table: {words:?}\n{text}");
    text
}

#[test]
fn nothing_wraps_at_eighty_columns() {
    let project = project();
    let text = fits(&project, &["run", "scripts/analyze.rhai"], "");
    assert!(text.contains("not shown at this width: ") && text.contains("class"), "{text}");
    fits(&project, &["run", "scripts/plots.rhai", "--look"], "");
    let few = ["--miniature", "--models", "01", "05", "--num-sequences", "2", "--sequence-length", "64"];
    let sweep = [&["run", "scripts/sweep.rhai"], &few[..]].concat();
    let text = fits(&project, &sweep, "");
    assert!(text.contains("not shown at this width: ") && text.contains("features"), "{text}");
    fits(&project, &[&sweep[..], &["--dry-run"]].concat(), "");
    fits(&project, &[&sweep[..], &["--status"]].concat(), "");
    fits(&project, &["run", "scripts/quickstart.rhai"], "");
    fits(&project, &["plan", "scripts/quickstart.rhai"], "");
    fits(&project, &["plan", "scripts/01_olmoe_1b_7b.rhai", "--miniature"], "");
    fits(&project, &["rethreshold", "results/mixtral_with_a_name_of_some_length", "--magnitude", "2.9"], "");
}

#[test]
fn detections_at_the_prompt_fit_the_terminal() {
    let typed = "let found = load_results(\"mixtral_with_a_name_of_some_length\").found;
found
found.features
found.layer_stats
load_results(\"llama_with_a_name_of_some_length\").sweep_criteria(#{ magnitude_threshold: [3.0, 4.0], n_resamples: 50 })
";
    let text = fits(&project(), &["repl"], typed);
    // What a row is about comes first, and is never what is left out.
    assert!(text.contains("│ feature_dim ┆") || text.contains("│ feature_dim "), "{text}");
    assert!(text.contains("│ norm"), "{text}");
}

#[test]
fn machines_fit_the_terminal() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    project.file(
        "script.rhai",
        "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", task: \"a_task_of_some_length\", keep_running: true });",
    );
    assert!(runpod::command(&project, &fake, &["run", "script.rhai"]).status().unwrap().success());
    let text = shown(runpod::command(&project, &fake, &["gpus"]), &["gpus"], "");
    assert!(text.contains("not shown at this width: "), "{text}");
    project.file(
        "script.rhai",
        "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\" });
        gpu.load_model(gpu.miniature_model(\"olmoe\").path).extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));",
    );
    let text = shown(runpod::command(&project, &fake, &["plan", "script.rhai"]), &["plan"], "");
    assert!(text.contains("machine"), "{text}");
    let machine = fake.alive().remove(0);
    assert!(runpod::command(&project, &fake, &["gpus", "terminate", &machine]).status().unwrap().success());
}

#[test]
fn a_pipe_gets_every_column() {
    let text = project().run(&["run", "scripts/analyze.rhai"]).ok();
    assert!(text.contains("median % of positions") && !text.contains("not shown at this width"), "{text}");
}

#[test]
fn a_terminal_that_says_no_width_has_eighty_columns() {
    let project = project();
    let (code, lines) = at_terminal(project.command(&["run", "scripts/analyze.rhai"]), 0, "");
    assert_eq!((code, too_wide(&lines, 80)), (0, Vec::<&String>::new()));
}

/// Terminals that people have: half of a screen, the usual one, a whole screen.
const WIDTHS: [u16; 3] = [60, 80, 200];

/// The words of a text, without the lines of source in it: of those a part is shown.
fn words(lines: &[String]) -> Vec<&str> {
    let is_source = |line: &str| {
        let before = line.split('|').next().unwrap_or_default();
        before.len() < line.len().min(8) && before.chars().all(|c| c == ' ' || c.is_ascii_digit())
    };
    lines.iter().filter(|line| !is_source(line)).flat_map(|line| line.split_whitespace()).collect()
}

/// What a person sees has the words that a pipe gets, none of them broken, and no line is too wide.
#[track_caller]
fn same_words(project: &Project, asked: &[&str], width: u16) {
    let piped = project.command(asked).output().unwrap();
    let (code, text) = on_screen(project.command(asked), width);
    let lines = drawn(&text);
    assert_eq!(Some(code), piped.status.code(), "{asked:?}: {text}");
    let longest = |line: &&String| line.split_whitespace().count() > 1;
    let wide: Vec<&String> = too_wide(&lines, width.into()).into_iter().filter(longest).collect();
    assert!(wide.is_empty(), "{width} columns, {asked:?}: {wide:#?}");
    let piped = format!("{}{}", String::from_utf8_lossy(&piped.stderr), String::from_utf8_lossy(&piped.stdout));
    let piped: Vec<String> = piped.lines().map(str::to_string).collect();
    assert_eq!(words(&lines), words(&piped), "{width} columns, {asked:?}");
}

#[test]
fn errors_and_hints_are_broken_between_words() {
    let project = project();
    project.file("misspelt.rhai", "load_model(\"mixtral\", #{ memory_bugdet: \"1GiB\" });");
    project.file(
        "folder.rhai",
        "load_model(\"a folder that is not there/and has a rather long name/in which nothing is\");",
    );
    for width in WIDTHS {
        for asked in [
            &["run", "misspelt.rhai"][..],
            &["check", "misspelt.rhai"],
            &["run", "folder.rhai"],
            &["run", "scripts/sweep.rhai", "--model", "01"],
            &["run", "scripts/sweep.rhai", "--text", "missing.txt"],
            &["scripts/sweep.rhai"],
            &["doc", "detect_outlier"],
            &["rethreshold", "results/mixtral_with_another_name"],
            &["gpus", "terminate", "a-machine-that-nobody-knows"],
        ] {
            same_words(&project, asked, width);
        }
    }
}

#[test]
fn help_is_broken_between_words() {
    let project = project();
    for command in ["", "run", "plan", "check", "test", "doc", "doctor", "repl", "new", "gpus", "offers", "rethreshold"]
    {
        for width in WIDTHS {
            let asked = [command, "--help"];
            let (code, text) = on_screen(project.command(&asked[usize::from(command.is_empty())..]), width);
            let lines = drawn(&text);
            assert_eq!((code, too_wide(&lines, width.into())), (0, Vec::<&String>::new()), "{command} at {width}");
        }
    }
    for width in WIDTHS {
        same_words(&project, &["run", "scripts/sweep.rhai", "--help"], width);
        let lines = drawn(&on_screen(project.command(&["doctor"]), width).1);
        assert!(lines.len() > 3 && too_wide(&lines, width.into()).is_empty(), "{lines:#?}");
        same_words(&project, &["doc"], width);
        same_words(&project, &["doc", "extract_layernorms"], width);
        same_words(&project, &["doc", "answers"], width);
    }
}

/// A program that is built with the tests has the features that their libraries ask for; a user's has not.
#[test]
fn help_is_broken_in_the_program_of_users_too() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let clap = manifest.lines().find(|line| line.starts_with("clap = ")).unwrap();
    assert!(clap.contains("\"wrap_help\""), "{clap}");
}

#[test]
fn a_long_line_of_source_is_shown_around_what_is_wrong() {
    let project = Project::new();
    let filler = "1, ".repeat(70);
    project.file("long.rhai", format!("let all = [{filler}not_there, {filler}1];"));
    for width in WIDTHS {
        let (code, text) = on_screen(project.command(&["run", "long.rhai"]), width);
        let lines = drawn(&text);
        assert_eq!((code, too_wide(&lines, width.into())), (1, Vec::<&String>::new()), "{text}");
        let shown = lines.iter().position(|line| line.starts_with(" 1 | ")).unwrap();
        let caret = lines[shown + 1].chars().position(|c| c == '^').unwrap();
        assert!(lines[shown].chars().skip(caret).collect::<String>().starts_with("not_there"), "{text}");
    }
    // A pipe gets a line of a few hundred characters as it is.
    assert!(project.run(&["run", "long.rhai"]).ends(1).stderr.contains(&format!("not_there, {filler}1];")));
}

/// Rows of a screen: whoever draws bars fills lines up with spaces in place of ending them.
fn rows(lines: &[String], width: usize) -> Vec<String> {
    let rows = |line: &String| {
        let line: Vec<char> = line.chars().collect();
        line.chunks(width).map(|row| row.iter().collect::<String>()).collect::<Vec<_>>()
    };
    lines.iter().flat_map(rows).collect()
}

#[test]
fn bars_fit_the_terminal() {
    let project = project();
    let sweep = ["run", "scripts/sweep.rhai", "--miniature", "--models", "01", "--num-sequences", "4", "--force"];
    let note = "miniature models are synthetic: random weights with planted features, made by this program";
    for width in [40, 60, 80, 200] {
        let (code, text) = on_screen(project.command(&sweep), width);
        let rows = rows(&drawn(&text), width.into());
        assert_eq!(code, 0, "{text}");
        assert!(words(&rows).join(" ").contains(note), "words are whole: {rows:#?}");
        let bars: Vec<&String> = rows.iter().filter(|row| row.contains("layer ") || row.contains("ETA ")).collect();
        let whole = |row: &&String| row.contains(['█', '░']) && row.contains("layer ");
        assert!(!bars.is_empty() && bars.iter().all(whole), "{width} columns: {rows:#?}");
    }
}

#[test]
fn a_dumb_terminal_gets_lines_and_one_without_colours_gets_none() {
    let project = project();
    let sweep = ["run", "scripts/sweep.rhai", "--miniature", "--models", "01", "--num-sequences", "2", "--force"];
    // Some libraries take these for a wish for colours; they are set where tests run by themselves.
    let wishes = [("CI", "true"), ("CLICOLOR", "1"), ("COLORTERM", "truecolor"), ("LANG", "C")];
    for wish in wishes {
        for asked in [&sweep[..], &["--help"], &["run", "--nonsense"], &["check", "nowhere.rhai"]] {
            let mut dumb = project.command(asked);
            dumb.env("TERM", "dumb").env(wish.0, wish.1).env_remove("CLICOLOR_FORCE");
            let (_, text) = on_screen(dumb, 80);
            assert!(!text.contains('\u{1b}'), "{wish:?} {asked:?}: {text:?}");
            let mut plain = project.command(asked);
            plain.env("TERM", "xterm-256color").env(wish.0, wish.1).env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1");
            let (_, text) = on_screen(plain, 80);
            let coloured = text.split("\u{1b}[").skip(1).filter(|rest| {
                let end = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
                end.starts_with('m') && !rest.starts_with("0m")
            });
            assert_eq!(coloured.count(), 0, "{wish:?} {asked:?}: {text:?}");
        }
    }
}

#[test]
fn the_language_of_the_terminal_changes_no_table() {
    let project = project();
    let shown = |language: &str| {
        let mut command = project.command(&["run", "scripts/analyze.rhai"]);
        command.env("LANG", language).env("LC_ALL", language);
        at_terminal(command, 80, "")
    };
    let (code, lines) = shown("C");
    assert!(code == 0 && too_wide(&lines, 80).is_empty(), "{lines:#?}");
    assert_eq!(lines, shown("de_DE.UTF-8").1);
}

#[test]
fn values_are_laid_out_for_the_terminal() {
    let project = Project::new();
    project
        .file("script.rhai", "let ids = []; for i in 1000..1040 { ids.push(i); } print(#{ ids: ids, name: \"x\" });");
    for (width, lines) in [(40, 12), (60, 10), (200, 8)] {
        let (code, text) = at_terminal(project.command(&["run", "script.rhai"]), width, "");
        assert_eq!((code, too_wide(&text, width.into())), (0, Vec::<&String>::new()));
        assert_eq!(text.len(), lines, "{text:#?}");
    }
}

#[test]
fn nothing_wraps_at_other_widths() {
    let project = project();
    let few = ["--miniature", "--models", "01", "--num-sequences", "2", "--sequence-length", "64"];
    for width in WIDTHS {
        for asked in [
            &["run", "scripts/analyze.rhai"][..],
            &["run", "scripts/quickstart.rhai"],
            &["run", "scripts/first_model.rhai", "--model", "examples/shakespeare-olmoe"],
            &["plan", "scripts/quickstart.rhai"],
            &[&["plan", "scripts/sweep.rhai"][..], &few].concat(),
            &[&["run", "scripts/sweep.rhai"][..], &few].concat(),
        ] {
            let (code, lines) = at_terminal(project.command(asked), width, "");
            assert_eq!(code, 0, "{asked:?}: {lines:#?}");
            let wide: Vec<_> =
                too_wide(&lines, width.into()).into_iter().filter(|line| line.trim().contains(' ')).collect();
            assert!(wide.is_empty(), "{width} columns, {asked:?}: {wide:#?}");
        }
    }
}
