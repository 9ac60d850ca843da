//! Tests of a newcomer's first model, from the hub, from a folder, and without a network, and of
//! the output that README shows.

use std::path::PathBuf;

use crate::fake_hub::{FAILED, Hub, Model};
use crate::project::{FINAL, Outcome, Project, repository};

const SCRIPT: &str = "scripts/first_model.rhai";

fn project() -> Project {
    let project = Project::new();
    project.copy(SCRIPT, SCRIPT);
    project
}

fn trained() -> PathBuf {
    repository().join("examples/shakespeare-olmoe")
}

fn from_hub(hub: &Hub, project: &Project, words: &[&str]) -> Outcome {
    let mut command = project.command(&[&["run", SCRIPT], words].concat());
    Outcome::of(command.env("HF_ENDPOINT", &hub.address).output().unwrap())
}

/// What the script must leave behind.
fn check_files(project: &Project, name: &str, stdout: &str) {
    let folder = format!("results/{name}");
    for file in [FINAL, "activations.stats", "report.html", "report.md", "figures/heat_map.svg", "figures/heat_map.png"]
    {
        assert!(project.has(&format!("{folder}/{file}")), "{file}: {:?}", project.files(&folder));
    }
    assert!(stdout.contains(&format!("results: {folder}/\n")), "{stdout}");
    assert!(stdout.contains(&format!("figures: {folder}/figures/ (")), "{stdout}");
    assert!(stdout.ends_with(&format!("report:  {folder}/report.html\n")), "{stdout}");
    let whole = project.json(&format!("{folder}/{FINAL}"));
    let config = &whole["run_config"];
    assert_eq!((&config["num_sequences"], &config["sequence_length"]), (&4.into(), &256.into()));
    let sentence = stdout.lines().next().unwrap();
    let features = whole["pooled"]["num_features"].as_u64().unwrap();
    let class = whole["pooled"]["classification"].as_str().unwrap();
    match features {
        0 => assert!(sentence.contains(" has no outlier feature at |x| ≥ "), "{sentence}"),
        1 => assert!(sentence.contains(" has 1 outlier feature at |x| ≥ "), "{sentence}"),
        n => assert!(sentence.contains(&format!(" has {n} outlier features at |x| ≥ ")), "{sentence}"),
    }
    assert!(stdout.contains(&format!("\n{class}: ")), "what the class means: {stdout}");
    // The report begins with the same words.
    let name = format!("<p>{name} has ");
    assert!(project.text(&format!("{folder}/report.html")).contains(&name));
}

#[test]
fn a_model_of_the_hub() {
    let hub = Hub::start().with("lab/small", Model::Folder(trained()));
    let project = project();
    let stdout = from_hub(&hub, &project, &["--model", "lab/small"]).ok();
    assert!(stdout.starts_with("lab/small has no outlier feature at |x| ≥ 6: "), "{stdout}");
    check_files(&project, "first_small", &stdout);
    // Without the hub, the cache serves.
    let again = project.run(&["run", SCRIPT, "--model", "lab/small", "--magnitude-threshold", "4"]).ok();
    assert!(again.starts_with("lab/small has ") && again.contains("at |x| ≥ 4, of 96 feature dimensions"), "{again}");
}

#[test]
fn a_model_in_a_folder() {
    let project = project();
    project.copy("examples/shakespeare-olmoe", "models/shakespeare");
    let stdout = project.run(&["run", SCRIPT, "--model", "models/shakespeare/", "--magnitude-threshold", "3"]).ok();
    assert!(stdout.contains(" interval over 4 sequences: ") && stdout.contains(" Its class is "), "{stdout}");
    check_files(&project, "first_shakespeare", &stdout);
    let planned = project.run(&["plan", SCRIPT, "--model", "models/shakespeare"]).ok();
    assert!(planned.contains("4 x 256") && !planned.contains("no such text"), "{planned}");
}

#[test]
fn without_a_network_it_offers_the_trained_example() {
    let project = project();
    for offline in ["", "1"] {
        let mut command = project.command(&["run", SCRIPT]);
        command.env("HF_HUB_OFFLINE", offline);
        let outcome = Outcome::of(command.output().unwrap()).ends(FAILED);
        assert_eq!(outcome.stdout, "");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", outcome.stderr);
        let said =
            "FAILED HuggingFaceTB/SmolLM2-135M-Instruct: the hub cannot be reached and the model is not in the cache";
        assert!(lines[0].starts_with(said) && lines[0].contains("outlier run scripts/quickstart.rhai"), "{}", lines[0]);
        assert!(!project.has("results"), "nothing is left behind");
    }
}

#[test]
fn a_model_that_does_not_exist_is_another_error() {
    let hub = Hub::start();
    let outcome = from_hub(&hub, &project(), &["--model", "lab/nothing"]).ends(FAILED);
    assert!(outcome.stderr.contains("no such model") && !outcome.stderr.contains("quickstart"), "{}", outcome.stderr);
}

/// What the script has printed, without what differs from model to model: the sentence up to the largest |x|, the last lines, and
/// the heads of the table.
fn shape(printed: &str, model: &str) -> ([String; 2], Vec<String>) {
    let table = |line: &&str| line.starts_with(['│', '┌', '╞', '└']);
    let words = printed.lines().filter(|line| !table(line)).flat_map(str::split_whitespace).map(|word| {
        let name = word.replace(model, "MODEL").replace(model.rsplit('/').next().unwrap(), "MODEL");
        let name = name.replace("SYSTEMATIC", "CLASS").replace("PROBABILISTIC", "CLASS").replace("features", "feature");
        name.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect::<String>()
    });
    let words = words.collect::<Vec<_>>().join(" ");
    let sentence =
        words.split(" Its largest |x|").next().unwrap().split(" The largest |x|").next().unwrap().to_string();
    let files =
        words.split("results: ").nth(1).unwrap_or_else(|| panic!("no files are named in {printed}")).to_string();
    let words = [sentence, files];
    let mut heads: Vec<String> = Vec::new();
    for line in
        printed.lines().skip_while(|line| !line.starts_with('┌')).skip(1).take_while(|line| line.starts_with('│'))
    {
        for (i, cell) in line.trim_matches('│').split('┆').enumerate() {
            if heads.len() <= i {
                heads.push(String::new());
            }
            heads[i] = format!("{} {}", heads[i], cell.trim()).trim().to_string();
        }
    }
    (words, heads)
}

/// What stands in README, and in the file that it is taken from, is what the script prints of another model, but for the numbers.
#[test]
fn what_is_shown_is_what_is_printed() {
    let project = project();
    project.copy("examples/shakespeare-olmoe", "shakespeare");
    let printed = project.run(&["run", SCRIPT, "--model", "shakespeare", "--magnitude-threshold", "4"]).ok();
    let (words, heads) = shape(&printed, "shakespeare");
    let model = "HuggingFaceTB/SmolLM2-135M-Instruct";
    let read = |file: &str| std::fs::read_to_string(repository().join(file)).unwrap();
    let readme = read("README.md");
    let marked = readme.split("<!-- first_model output -->").nth(1);
    let marked = marked.map(|text| text.split("```").nth(1).unwrap().trim_start_matches("text").trim().to_string());
    for shown in [Some(read("docs/images/first_model.txt")), marked].into_iter().flatten() {
        let wide: Vec<&str> = shown.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty() && shown.contains("not shown at this width: "), "as in 80 columns: {wide:#?}");
        let (shown_words, shown_heads) = shape(&shown, model);
        assert_eq!(shown_words, words, "{shown}");
        assert!(
            shown_heads.len() > 3 && shown_heads.iter().all(|head| heads.contains(head)),
            "{shown_heads:?} {heads:?}"
        );
    }
}
