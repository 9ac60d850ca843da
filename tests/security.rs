//! Tests of docs/security.md, line by line: each test has the number of the line that it tries to
//! break.

use crate::project::{Project, repository};

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

const ACTS: &str = "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));\n";

/// Runs a script that must fail with this message, and returns the files that it left outside of
/// the model.
#[track_caller]
fn refused(project: &Project, script: &str, message: &str) {
    let outcome = project.script(script);
    assert_ne!(outcome.code, 0, "{script}");
    assert!(outcome.stderr.contains(message), "{message:?} in {}", outcome.stderr);
    assert!(outcome.stderr.contains("\n  hint: "), "{}", outcome.stderr);
}

/// The number of a line, and its tests.
type Tested = (u32, &'static [fn()]);

/// Lines whose tests are among those of their area, where they run.
const ELSEWHERE: &[Tested] = &[
    // links, pipes and what was written are no modules
    (
        5,
        &[
            crate::limits::a_module_that_is_a_link_gives_no_file_away,
            crate::limits::a_module_that_is_a_pipe_is_not_waited_for,
            crate::limits::a_text_of_the_run_is_no_module,
        ],
    ),
    // texts come from the project and from where the user says
    (
        7,
        &[
            crate::outside_files::texts_outside_the_project_are_read_by_no_script,
            crate::outside_files::the_user_says_what_else_is_read,
            crate::outside_files::files_with_names_of_secrets_are_read_by_no_script,
            crate::outside_files::copies_and_relatives_of_secrets_are_no_texts,
        ],
    ),
    // messages quote little
    (
        8,
        &[
            crate::outside_files::messages_quote_no_files_at_length,
            crate::formats::a_column_that_is_not_there_is_told_with_those_that_are,
            crate::hardening::messages_stay_short_whatever_stands_in_files_and_names,
        ],
    ),
    // only files are read
    (
        9,
        &[
            crate::outside_files::what_is_no_file_is_not_read,
            crate::hardening::pipes_and_devices_are_no_keys_and_are_not_sent,
        ],
    ),
    // a damaged file is an error
    (
        10,
        &[
            crate::outside_files::a_damaged_tokenizer_is_an_error,
            crate::outside_files::a_damaged_parquet_file_is_an_error,
            crate::formats::packed_files_that_are_cut_off_are_errors,
            crate::formats::what_small_files_unpack_to_takes_no_memory,
            crate::bad_models::a_size_that_no_model_has_is_named,
            crate::pytorch_files::a_pickle_that_would_run_a_command_runs_nothing,
            crate::pytorch_files::a_pickle_that_wants_too_much_is_refused,
        ],
    ),
    // results are of one run
    (
        11,
        &[
            crate::hardening::an_analysis_with_infinite_losses_is_saved_and_loaded,
            crate::saving::a_record_of_another_run_is_not_believed,
            crate::saving::a_full_disk_leaves_the_analysis_of_before,
        ],
    ),
    // sizes are not believed
    (12, &[crate::bad_results::a_small_record_does_not_unpack_to_gigabytes]),
    // links lead nowhere
    (
        13,
        &[
            crate::writing::a_link_does_not_lead_a_file_out,
            crate::writing::tables_are_exported_below_results_only,
            crate::replacing::where_the_user_allows_it_every_primitive_writes,
            crate::limits::the_programs_own_folders_are_no_way_out,
        ],
    ),
    // names of places
    (
        14,
        &[
            crate::writing::names_that_are_no_places_are_refused,
            crate::replacing::the_users_word_covers_no_hidden_files_and_no_secrets,
            crate::limits::the_list_of_machines_keeps_its_place,
            crate::limits::a_file_that_is_called_as_an_unfinished_checkpoint_stays,
        ],
    ),
    // nothing unfinished stays
    (15, &[crate::saving::unfinished_files_of_killed_runs_are_removed_and_those_of_others_are_not]),
    // a hub names no files
    (
        20,
        &[
            crate::hub_trust::what_a_hub_says_becomes_no_file_name,
            crate::hub_trust::what_was_downloaded_is_believed_by_its_hash,
            crate::model_spellings::an_index_that_leads_out_of_its_folder_is_told_so,
            crate::user_cache::damaged_files_of_the_cache_are_not_called_missing,
            crate::user_cache::blobs_that_a_mirror_has_named_are_used,
        ],
    ),
    // services come to an end
    (21, &[crate::hub_trust::a_server_that_asks_to_wait_for_ever]),
    // dot env holds keys
    (22, &[crate::hub_trust::a_dot_env_redirects_nothing]),
    // secrets go where the user says
    (23, &[crate::hub_trust::a_token_does_not_cross_a_network_in_clear]),
    // machines write what was asked for
    (
        24,
        &[
            crate::trust::a_machine_writes_only_what_was_asked_for,
            crate::trust::what_is_secret_or_run_here_is_not_fetched,
            crate::replacing::what_comes_from_a_machine_replaces_no_file_of_the_project,
            crate::replacing::activations_that_a_project_has_are_not_replaced_without_a_word,
        ],
    ),
    // links are what they lead to
    (25, &[crate::trust::links_are_judged_by_where_they_lead, crate::trust::a_name_is_no_option]),
    // the user vouches for machines
    (
        26,
        &[
            crate::trust::a_script_cannot_vouch_for_a_machine,
            crate::ssh_names::machines_are_called_by_their_names_in_the_users_config,
        ],
    ),
    // this computer is this computer
    (
        27,
        &[
            crate::trust::this_computer_is_this_computer_under_every_name,
            crate::this_computer::a_path_in_the_home_folder_is_not_one_in_the_project,
            crate::this_computer::a_link_there_does_not_lead_out_of_the_project,
            crate::ssh_names::this_computer_is_this_computer_behind_an_alias_and_on_a_way_through_itself,
        ],
    ),
    // neighbours keep their machines
    (28, &[crate::trust::a_run_in_another_container_keeps_its_machine]),
    // machines write what was asked for
    (
        29,
        &[
            crate::wire::a_machine_names_files_and_none_is_written,
            crate::wire::the_reply_does_not_say_where_all_values_are_put,
        ],
    ),
    // machines hold nobody
    (30, &[crate::wire::one_interrupt_ends_the_wait_for_a_worker_that_stands_still]),
    // machines answer what was asked
    (
        31,
        &[
            crate::hardening::measurements_that_are_no_numbers_replace_no_analysis,
            crate::wire::a_reply_of_the_wrong_kind_is_an_error,
            crate::wire::a_frame_larger_than_the_answer_can_be_is_not_read,
        ],
    ),
    // terminals are not ordered about
    (32, &[crate::wire::a_machine_does_not_order_the_terminal_about]),
    // bounds of steps and time stay reached
    (33, &[crate::limits::bounds_that_are_caught_stay_reached]),
    // one call stays small
    (
        36,
        &[
            crate::limits::one_call_cannot_ask_for_more_than_there_is,
            crate::limits::padding_with_nothing_ends,
            crate::limits::values_that_grow_by_small_steps_have_an_end,
        ],
    ),
    // nesting ends
    (
        37,
        &[
            crate::script_host::values_nested_thousands_deep_are_an_error,
            crate::script_host::calls_in_deep_expressions_leave_the_stack_whole,
            crate::parallel::deep_values_on_threads_are_an_error,
            crate::limits::calls_of_parallel_inside_each_other_have_an_end,
        ],
    ),
    // all values together stay small
    (
        38,
        &[
            crate::script_host::all_values_together_have_a_bound,
            crate::limits::threads_together_stay_below_the_bound_of_memory,
            crate::limits::values_that_fill_the_address_space_are_an_error,
        ],
    ),
    // modules end
    (
        39,
        &[
            crate::script_host::modules_that_import_each_other_are_an_error,
            crate::script_host::a_script_of_endless_length_is_refused,
            crate::limits::a_text_whose_parsing_takes_quadratic_time_is_refused,
        ],
    ),
    // times and counts are bounded
    (
        40,
        &[
            crate::bad_options::times_and_counts_beyond_all_measure,
            crate::command_line::minutes_that_are_no_time_are_bad_usage,
        ],
    ),
    // output costs no result
    (
        41,
        &[
            crate::output::a_reader_that_leaves_costs_no_result,
            crate::output::a_full_stdout_costs_no_result_and_is_told_once,
            crate::limits::a_log_on_a_full_disk_is_told,
        ],
    ),
    // signals are heard and ignored
    (42, &[crate::interrupt::signals_that_are_ignored_stay_so, crate::tools::links_that_lead_back_are_searched_once]),
    // a worker lets only its user in
    (43, &[crate::worker::neighbours]),
    // a machine ends whatever its worker does
    (44, &[crate::worker::deaths]),
    // what clients can make a worker hold
    (45, &[crate::worker::bounds]),
    // times from outside
    (46, &[crate::worker::times]),
];

#[test]
fn every_line_has_a_test() {
    let text = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    let tests = include_str!("security.rs");
    let numbers = text.lines().filter_map(|line| line.split_once(". ")?.0.parse::<u32>().ok());
    let is_elsewhere = |number: &u32| ELSEWHERE.iter().any(|(line, tests)| line == number && !tests.is_empty());
    let is_here = |number: &u32| tests.contains(&format!("fn line_{number}_"));
    let missing: Vec<u32> = numbers.filter(|number| !is_here(number) && !is_elsewhere(number)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn line_1_results_stay_below_results() {
    let project = project();
    for name in ["../x", "/tmp/x", "a/../../x", ".hidden", "a//b", "", "a b", "a\\b"] {
        let name = name.replace('\\', "\\\\");
        let script =
            format!("{ACTS}save_results(\"{name}\", #{{ activations: acts, found: acts.detect_outliers() }});");
        refused(&project, &script, "is not a name for results");
    }
    assert_eq!(project.files("results"), [""; 0]);
}

#[test]
fn line_2_logs_stay_below_logs() {
    let project = Project::new();
    for name in ["../x", "/tmp/x", ".hidden"] {
        refused(&project, &format!("with_log(\"{name}\", || 1);"), "is not a name for results");
        refused(&project, &format!("last_logged(\"{name}\");"), "is not a name for results");
    }
    assert_eq!(project.files("logs"), [""; 0]);
}

/// The machine is this computer, and paths on both sides are paths here.
fn at_home(project: &Project, script: &str) -> crate::project::Outcome {
    project.file(
        "script.rhai",
        format!("let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"localhost\" }});\n{script}"),
    );
    let mut command = project.command(&["run", "script.rhai"]);
    crate::project::Outcome::of(command.env("HOME", project.path("home")).output().unwrap())
}

/// Checks that every call is refused, and returns the messages, one per line.
#[track_caller]
fn all_refused(project: &Project, calls: &[&str]) -> Vec<String> {
    let tries =
        calls.iter().map(|call| format!("try {{ {call}; print(\"DONE\"); }} catch (e) {{ print(e.message); }}\n"));
    let text = at_home(project, &tries.collect::<String>()).ok();
    assert!(!text.contains("DONE"), "{text}");
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    assert_eq!(lines.len(), calls.len(), "{text}");
    lines
}

#[test]
fn line_3_nothing_is_written_elsewhere() {
    let project = Project::new();
    project.file("a.txt", "a");
    let lines = all_refused(
        &project,
        &[
            "gpu.download(\"a.txt\", \"../b.txt\")",
            "gpu.download(\"a.txt\", \"/tmp/outlier_security_test\")",
            "gpu.download(\"/etc/hostname\", \"b.txt\")",
            "gpu.upload(\"a.txt\", \"/tmp/outlier_security_test\")",
            "gpu.upload(\"a.txt\", \"../../b.txt\")",
            "gpu.sync(#{ down: \"../b.txt\" })",
        ],
    );
    assert!(lines.iter().all(|line| line.contains("is not inside the project")), "{lines:?}");
    assert!(!project.has("b.txt") && !std::path::Path::new("/tmp/outlier_security_test").exists());
}

#[test]
fn line_4_secrets_stay_here() {
    let project = Project::new();
    project.file(".env", "HF_TOKEN=x").file("results/.keys/run", "key").file(".ssh/id", "key");
    let lines = all_refused(
        &project,
        &[
            "gpu.upload(\".env\", \"x\")",
            "gpu.upload(\"results/.keys/run\", \"x\")",
            "gpu.upload(\".ssh/id\", \"x\")",
            "gpu.upload(\"./.env\", \"x\")",
            "gpu.upload(\"/etc/hostname\", \"x\")",
            "gpu.upload(\"../x\", \"x\")",
            "gpu.sync(#{ up: \"/etc/hostname\" })",
            "gpu.sync(#{ up: \"../x\" })",
            "gpu.sync(#{ up: \".env\" })",
        ],
    );
    assert!(lines[..4].iter().all(|line| line.contains("may hold secrets")), "{lines:?}");
    let there: Vec<String> =
        project.files("home/.outlier").into_iter().filter(|file| file.contains("projects/")).collect();
    assert!(there.iter().all(|file| !file.contains(".env") && !file.contains("hostname")), "{there:?}");
}

#[test]
fn line_5_modules_stay_in_the_project() {
    let project = Project::new();
    project.file("outside.rhai", "let x = 1;");
    for path in ["../outside", "/etc/outside", "a/../../outside", "..\\\\outside"] {
        refused(&project, &format!("import \"{path}\" as m;"), "leads out of the project");
    }
}

#[test]
fn line_6_files_are_read_as_what_they_are() {
    let project = Project::new();
    project.file("secret.txt", "the password is swordfish");
    for script in [
        "load_tokens(#{ ids: \"secret.txt\" })",
        "load_tokens(#{ ids: \"secret.txt\", tensor: \"x\" })",
        "load_model(\"secret.txt\")",
        "load_results(\"secret.txt\")",
    ] {
        let outcome = project.script(script);
        assert_ne!(outcome.code, 0);
        assert!(!outcome.stderr.contains("swordfish"), "{script}: {}", outcome.stderr);
    }
    refused(&project, "load_results(\"../elsewhere\")", "leads out of the project");
    for function in ["open_file", "read_file", "read", "include_str", "File"] {
        refused(&project, &format!("{function}(\"secret.txt\")"), "no function");
    }
}

#[test]
fn line_16_no_environment() {
    for function in ["env", "getenv", "environ", "envs", "var"] {
        let outcome = Project::new().script(&format!("print({function}(\"HOME\"));")).ends(1);
        assert!(outcome.stdout.is_empty(), "{function}");
    }
    let names: Vec<String> = outlier::host::registered().into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| !name.contains("env")), "{names:?}");
}

#[test]
fn line_17_no_processes_here() {
    let project = Project::new();
    let message = "commands do not run on this machine";
    refused(&project, "provision_gpu().run_command(\"touch made\")", message);
    let outcome = at_home(&project, "gpu.run_command(\"touch made\")").ends(1);
    assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
    assert!(!project.has("made"));
    project.file("script.rhai", "print(provision_gpu().run_command(\"echo said so\").out);");
    let allowed = project.run(&["run", "--allow-commands", "script.rhai"]).ok();
    assert!(allowed.contains("said so"), "{allowed}");
    for function in ["system", "exec", "spawn_process", "shell"] {
        refused(&project, &format!("{function}(\"touch made\")"), "no function");
    }
}

#[test]
fn line_18_no_eval() {
    let outcome = Project::new().script("eval(\"print(1)\")").ends(1);
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains("eval"), "{}", outcome.stderr);
}

#[test]
fn line_19_secrets_are_no_values() {
    let project = Project::new();
    project.file(
        "script.rhai",
        "let gpu = provision_gpu(); print(gpu.to_json()); print(gpu.to_debug()); print(args(#{}));",
    );
    let mut command = project.command(&["run", "script.rhai"]);
    command.env("HF_TOKEN", "hf_swordfish").env("RUNPOD_API_KEY", "rpa_swordfish");
    let outcome = crate::project::Outcome::of(command.output().unwrap()).ends(0);
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("swordfish"));
}

#[test]
fn line_33_steps_end() {
    let project = Project::new();
    project.file("script.rhai", "let n = 0;\nloop { n += 1; }");
    let outcome = project.run(&["run", "--max-steps", "100000", "script.rhai"]).ends(1);
    assert!(
        outcome.stderr.contains("more steps than it may") && outcome.stderr.contains("--max-steps"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("  --> script.rhai:2:"), "{}", outcome.stderr);
}

#[test]
fn line_34_time_ends() {
    let project = Project::new();
    project.file("script.rhai", "loop { }");
    let outcome = project.run(&["run", "--max-minutes", "0.005", "script.rhai"]).ends(1);
    assert!(
        outcome.stderr.contains("longer than it may") && outcome.stderr.contains("--max-minutes"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn line_35_depth_ends() {
    let project = Project::new();
    refused(&project, "fn f(x) { f(x + 1) } f(0)", "too deeply");
    let deep = format!("let x = {}1{};", "(".repeat(400), ")".repeat(400));
    let outcome = project.script(&deep).ends(1);
    assert!(outcome.stderr.contains("error: "), "{}", outcome.stderr);
}

#[test]
fn line_36_values_stay_small() {
    let project = Project::new();
    for script in [
        "let s = \"x\"; loop { s += s; }",
        "let a = [1]; loop { a += a; }",
        "let a = [1]; loop { a = [a, a]; }",
        "let s = \"x\"; s.pad(1000000000, \"y\");",
        "let a = []; a.pad(1000000000, 1);",
    ] {
        refused(&project, script, "too large");
    }
}
