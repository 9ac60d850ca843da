//! Tests of the engine on a GPU: other tests run again on a device that a C++ compiler makes of
//! this CPU and the project's own kernels (`emulated_gpu`). `OUTLIER_TEST_DEVICE=cuda:0 cargo test
//! oracle::` runs them on a real one.

use std::path::Path;
use std::process::{Command, Output};

use crate::emulated_gpu::{CUBLAS, emulate, emulate_driver};
use crate::estimate::{LATENT, TOLERANCE, both_with};
use crate::fake_runpod::FakeRunPod;
use crate::project::{Outcome, Project, program, stripped};
use crate::runpod::{clean, command};
use crate::ssh::{analysis, project as project_with, provision, same};
use crate::sshd::Sshd;
use crate::streaming::Shape;

/// Runs this program's own tests with `tests` in their names, on `device` of a machine with three
/// emulated GPUs.
fn again(device: &str, tests: &[&str], environment: &[(&str, &Path)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(tests).args(["--exact", "--nocapture", "--test-threads", "1"]);
    command.env("LD_LIBRARY_PATH", folder.path()).env("EMULATED_GPUS", "3").env("OUTLIER_TEST_DEVICE", device);
    command.envs(environment.iter().copied());
    command.output().unwrap()
}

#[track_caller]
pub fn pass(device: &str, tests: &[&str]) {
    pass_with(device, tests, &[]);
}

#[track_caller]
pub fn pass_with(device: &str, tests: &[&str], environment: &[(&str, &Path)]) {
    let output = again(device, tests, environment);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains(&format!("{} passed", tests.len())), "{out}");
}

#[test]
fn every_architecture_agrees_with_transformers() {
    pass("cuda:0", &["oracle::every_architecture_agrees_with_transformers"]);
}

#[test]
fn quantised_models_agree_with_transformers_on_one_gpu_and_on_several() {
    for device in ["cuda:0", "cuda:2,0"] {
        pass(device, &["quantised::quantised_models_agree_with_transformers_on_the_decoded_weights"]);
    }
}

#[test]
fn measurements_agree_with_transformers_on_one_gpu_and_on_several() {
    let measurements = [
        "measures::moments_of_every_site_agree_with_transformers",
        "measures::hits_at_every_site_agree_with_transformers",
        "measures::massive_activations_and_residual_sinks_are_those_of_the_papers",
        "measures::attention_sinks_are_those_of_gu_et_al",
        "measures::experts_are_measured_as_their_papers_say",
        "measures::super_weights_are_where_the_largest_values_meet",
        "measures_weights::statistics_of_all_weights_are_those_of_the_reference",
        "measures_attribution::what_is_written_adds_up_to_the_residual_stream",
        "measures_attribution::quantiles_of_every_site_are_within_a_bin_of_the_reference",
    ];
    for device in ["cuda:0", "cuda:2,0"] {
        pass(device, &measurements);
    }
}

#[test]
fn lanes_agree_with_transformers_on_one_gpu_and_on_several() {
    let lanes = [
        "lanes::every_intervention_agrees_with_transformers",
        "lanes::the_attention_of_changed_inputs_agrees_with_transformers",
        "lanes::lanes_go_on_where_a_pass_was_cut_off",
    ];
    for device in ["cuda:0", "cuda:2,0"] {
        pass(device, &lanes);
    }
}

#[test]
fn rare_types_and_layouts_are_converted_for_gpus() {
    let tests = [
        "other_numbers::a_model_that_was_cast_to_eight_bits_is_computed_as_it_is",
        "other_numbers::codes_of_eight_bits_that_are_no_number_are_refused",
        "other_numbers::numbers_of_64_bits_are_rounded_to_32",
        "other_numbers::tensors_that_do_not_lie_together_are_laid_out",
        "other_numbers::groups_of_gptq_may_have_64_bits",
    ];
    for device in ["cuda:0", "cuda:2,0"] {
        pass(device, &tests);
    }
}

#[test]
fn codes_that_stand_for_nothing_are_refused_in_the_same_words() {
    let refused = [
        "quantised::codes_and_scales_that_are_no_numbers_are_refused_by_name",
        "quantised_integers::numbers_that_are_none_are_refused_by_name",
        "quantised_integers::groups_that_do_not_exist_are_refused",
        "quantised_integers::a_shape_that_is_not_the_weight_s_is_refused",
    ];
    pass("cuda:0", &refused);
}

#[test]
fn outlier_features_are_the_same_in_bf16() {
    pass("cuda:0", &["precision::every_architecture_keeps_its_outlier_features_in_bf16"]);
}

#[test]
fn the_memory_budget_does_not_change_the_result() {
    pass("cuda:0", &["invariance::the_memory_budget_does_not_change_the_result"]);
}

#[test]
fn every_layer_can_be_the_last() {
    pass("cuda:0", &["resume::every_layer_of_every_kind_can_be_the_last"]);
}

#[test]
fn several_gpus_agree_with_transformers_too() {
    pass("cuda:2,0", &["oracle::every_kind_agrees_with_transformers"]);
    // More of them than most fixtures have sequences.
    pass("cuda", &["oracle::every_kind_agrees_with_transformers"]);
}

#[test]
fn several_gpus_go_on_where_they_were_cut_off() {
    pass("cuda:0,1", &["resume::every_layer_of_every_kind_can_be_the_last"]);
}

/// One layer at a time is allowed, because how much is read ahead at the peak depends on timing.
#[test]
fn the_estimate_of_its_memory_holds() {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let of = |experts| Shape { hidden: 128, inner: 384, experts, layers: 3 };
    let mut wrong = Vec::new();
    let mut check =
        |write: &dyn Fn(&Project), (sequences, length): (usize, usize), options: &str, extract, gpus: &str| {
            let options = format!("chunk_layers: 1{}{options}", if options.is_empty() { "" } else { ", " });
            let with = |command: &mut Command| {
                command.env("LD_LIBRARY_PATH", folder.path()).env("EMULATED_GPUS", gpus);
            };
            let (estimate, measured) = both_with(write, sequences, length, &options, extract, &with);
            let (estimated, peak) =
                (estimate["vram_bytes"].as_f64().unwrap(), measured["peak_vram_bytes"].as_f64().unwrap());
            println!("{options} {extract}: estimated {estimated} bytes, measured {peak}: {:.2}", estimated / peak);
            if (estimated / peak - 1.0).abs() > TOLERANCE {
                wrong.push(estimate);
            }
        };
    for (shape, sequences, length, options, extract, gpus) in [
        (of(0), 9, 128, "", "", "2"),
        (Shape { inner: 128, ..of(4) }, 8, 128, "", "", "3"),
        (Shape { hidden: 256, inner: 1024, experts: 0, layers: 3 }, 1, 32, "", "", "1"),
        (of(0), 8, 128, "", "", "1"),
        (of(0), 8, 128, "dtype: \"bf16\"", "", "1"),
        (of(0), 8, 128, "", "memory_budget: 800000", "1"),
        (Shape { inner: 128, ..of(4) }, 8, 128, "dtype: \"bf16\"", "logits: true", "1"),
    ] {
        check(&|project| shape.write(project), (sequences, length), options, extract, gpus);
    }
    for latent in LATENT {
        check(&|project| latent.write(project, 256), (4, 64), "", "", "1");
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The libraries of the emulated GPU, and a project with a mixture of experts and tokens for it.
fn experts_and_tokens(sequences: usize, length: usize) -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let project = Project::new();
    Shape { hidden: 128, inner: 512, experts: 4, layers: 3 }.write(&project);
    let row = |s: usize| (0..length).map(|t| (t * 7 + s) % 256).collect::<Vec<_>>();
    project.file("ids.json", serde_json::to_string(&(0..sequences).map(row).collect::<Vec<_>>()).unwrap());
    (folder, project)
}

#[test]
fn several_gpus_read_every_weight_once() {
    let (folder, project) = experts_and_tokens(7, 128);
    project.file(
        "run.rhai",
        r#"let model = load_model("model", #{ device: "cuda" });
           let acts = model.extract_layernorms(load_tokens(#{ ids: "ids.json" }), #{ logits: true });
           let m = acts.measurements;
           print(#{ device: model.device, read: m.bytes_read, peak: m.peak_vram_bytes, coverage: acts.expert_coverage }.to_json());"#,
    );
    let on = |gpus: &str| {
        let mut command = project.command(&["run", "run.rhai"]);
        command.env("LD_LIBRARY_PATH", folder.path()).env("EMULATED_GPUS", gpus);
        Outcome::of(command.output().unwrap()).json()
    };
    let (one, three) = (on("1"), on("3"));
    assert_eq!((one["device"].as_str(), three["device"].as_str()), (Some("cuda:0"), Some("cuda:0,1,2")));
    assert_eq!(one["coverage"].as_array().map(Vec::len), Some(3), "{one}");
    for same in ["read", "coverage"] {
        assert_eq!(one[same], three[same], "{same}");
    }
    assert!(three["peak"].as_u64() < one["peak"].as_u64(), "{one} {three}");
}

#[test]
fn a_timeline_accounts_for_the_work() {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let project = Project::new();
    let shape = Shape { hidden: 128, inner: 256, experts: 4, layers: 3 };
    shape.write(&project);
    let script = SCRIPT.replace("DEVICE", "\"cuda\"");
    let mut command = project.file("run.rhai", script).command(&["run", "run.rhai"]);
    command.env("LD_LIBRARY_PATH", folder.path()).env("EMULATED_GPUS", "2").env("OUTLIER_TIMELINE", "timeline.json");
    Outcome::of(command.output().unwrap()).ok();
    let text = std::fs::read_to_string(project.path("timeline.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |name: &str| events.iter().filter(|event| event["name"] == name).collect::<Vec<_>>();
    // One sequence, so one of the GPUs: two norms in each of three layers.
    assert_eq!(of("tap").len(), 6);
    for layer in 0..3 {
        assert_eq!(of(&format!("layer {layer}")).len(), 1);
    }
    assert!(events.iter().all(|event| event["dur"].as_f64().is_some_and(|took| took >= 0.0)), "{text}");
    let sum = |name: &str, unit: &str| of(name).iter().filter_map(|event| event["args"][unit].as_f64()).sum::<f64>();
    // More than what the router alone takes.
    assert!(sum("product in f32", "operations") > 2.0 * 3.0 * 8.0 * 128.0 * 4.0, "{text}");
    let copied: Vec<_> = of("to the GPU").into_iter().filter(|event| event["tid"] == "copy").collect();
    let bytes: u64 = copied.iter().filter_map(|event| event["args"]["bytes"].as_u64()).sum();
    assert!(bytes > 100_000 && copied.iter().all(|event| event["pid"] == 0), "{bytes}");
}

#[test]
fn in_less_memory_the_work_is_cut_further() {
    let (folder, project) = experts_and_tokens(8, 256);
    let run = |name: &str, load: &str| {
        let script = format!(
            r#"let model = load_model("model", #{{ device: "cuda", {load} }});
               let acts = model.extract_layernorms(load_tokens(#{{ ids: "ids.json" }}), #{{ keep: "full", out: "{name}" }});
               print(acts.measurements.peak_vram_bytes);"#
        );
        project.file("run.rhai", script);
        let mut command = project.command(&["run", "run.rhai"]);
        command.env("LD_LIBRARY_PATH", folder.path());
        Outcome::of(command.output().unwrap())
    };
    let free = run("free", "");
    assert!(!free.stderr.contains("memory is full"), "{}", free.stderr);
    let most: u64 = free.ok().trim().parse().unwrap();
    let allowed = most * 3 / 4;
    let tight = run("tight", &format!("max_vram: {allowed}"));
    assert_eq!(tight.stderr.matches("the GPU's memory is full: work is cut").count(), 1, "{}", tight.stderr);
    let peak: u64 = tight.ok().trim().parse().unwrap();
    assert!(peak <= allowed, "{peak} bytes where {allowed} are allowed");
    let all = |name: &str| crate::oracle::tensors(&project.path(name).join("activations.safetensors"));
    let (free, tight) = (all("free"), all("tight"));
    assert_eq!(free.len(), 6);
    for (name, expected) in &free {
        let error = crate::oracle::relative_error(&tight[name], expected);
        assert!(error < 1e-6, "{name}: {error:e}");
    }
    let hopeless = run("hopeless", "max_vram: 100000");
    assert!(hopeless.stderr.contains("bytes of weights at once are more than"), "{}", hopeless.stderr);
}

const SCRIPT: &str = r#"
    let model = load_model("model", #{ device: DEVICE });
    let acts = model.extract_layernorms(load_tokens(#{ ids: [[1, 2, 3, 4, 5, 6, 7, 8]] }));
    print(model.device);
"#;

/// The answer of SCRIPT on `device`, if the loader finds libraries in `folder`.
fn on(device: &str, folder: &Path, gpu_bytes: &str) -> Outcome {
    let project = Project::new();
    project.copy("tests/fixtures/olmoe", "model").file("run.rhai", SCRIPT.replace("DEVICE", &format!("{device:?}")));
    let mut command = project.command(&["run", "run.rhai"]);
    command.env("LD_LIBRARY_PATH", folder).env("VIRTUAL_ENV", folder).env("EMULATED_GPU_BYTES", gpu_bytes);
    Outcome::of(command.output().unwrap())
}

#[test]
fn auto_is_the_gpu_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let alone = on("auto", folder.path(), "0");
    assert_eq!(alone.stderr.matches("device \"auto\": the CPU computes").count(), 1, "{}", alone.stderr);
    assert_eq!(alone.ok(), "cpu\n");
    emulate(folder.path());
    assert_eq!(on("auto", folder.path(), "100000000").ok(), "cuda:0\n");
    assert_eq!(on("cuda", folder.path(), "100000000").ok(), "cuda:0\n");
}

#[test]
fn cublas_is_found_beside_pytorch_and_missed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let packages = folder.path().join("lib/python3.12/site-packages/nvidia/cublas/lib");
    std::fs::create_dir_all(&packages).unwrap();
    let beside = packages.join(CUBLAS);
    std::fs::rename(folder.path().join(CUBLAS), &beside).unwrap();
    assert_eq!(on("cuda", folder.path(), "100000000").ok(), "cuda:0\n");
    std::fs::remove_file(beside).unwrap();
    let outcome = on("cuda", folder.path(), "100000000");
    assert!(outcome.stderr.contains("libcublas.so is not found"), "{}", outcome.stderr);
}

#[test]
fn an_old_gpu_is_told_from_none() {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let project = Project::new();
    let doctor = project.command(&["doctor"]).env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    let doctor = Outcome::of(doctor).ok();
    assert!(doctor.contains("Emulated GPU") && doctor.contains("\"cuda\" and \"auto\": cuda:0"), "{doctor}");
    let mut command = project.command(&["doctor"]);
    command.env("LD_LIBRARY_PATH", folder.path()).env("EMULATED_CAPABILITY", "7");
    let doctor = Outcome::of(command.output().unwrap()).ok();
    assert!(doctor.contains("has compute capability 7.0") && doctor.contains("an A100, A10"), "{doctor}");
}

#[test]
fn a_full_gpu_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let outcome = on("cuda", folder.path(), "20000");
    assert!(outcome.stderr.contains("of weights at once are more than"), "{}", outcome.stderr);
}

#[test]
fn the_program_is_linked_with_no_library_of_nvidia() {
    let output = Command::new("ldd").arg(program()).output().unwrap();
    let linked = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && linked.contains("libc."), "{linked}");
    let theirs = |line: &&str| ["cuda", "cublas", "nvrtc", "nvidia"].iter().any(|word| line.contains(word));
    assert_eq!(linked.lines().find(theirs), None);
}

/// The program is sent to machines that have another OpenSSL, or none.
#[test]
fn the_program_brings_its_own_openssl() {
    let output = Command::new("ldd").arg(program()).output().unwrap();
    let linked = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && linked.contains("libc."), "{linked}");
    let needed = |line: &&str| ["libssl", "libcrypto"].iter().any(|word| line.contains(word));
    assert_eq!(linked.lines().find(needed), None, "`sh .ci/packages` before the build makes it link statically");
}

/// A project with pods whose sessions find libraries in `folder`.
fn pods_with(folder: &Path) -> FakeRunPod {
    FakeRunPod::start().with_environment("LD_LIBRARY_PATH", folder.to_str().unwrap())
}

const RENT: &str = "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\" });\n";

/// The program is the same in every build, and sends itself.
#[test]
fn a_rented_machine_computes_on_its_gpus() {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let fake = pods_with(folder.path()).with_environment("EMULATED_GPUS", "2");
    let (there, here) = (Project::new(), Project::new());
    there.file("script.rhai", format!("{RENT}{}", analysis("olmoe", "x")));
    let outcome = Outcome::of(command(&there, &fake, &["run", "script.rhai"]).output().unwrap()).ends(0);
    clean(&fake, &outcome);
    assert!(!outcome.stderr.contains("device \"auto\""), "{}", outcome.stderr);
    assert_eq!(there.json("results/x/final_analysis_results.json")["provenance"]["model"]["device"], "cuda:0,1");
    here.file("script.rhai", format!("let gpu = provision_gpu();\n{}", analysis("olmoe", "x")));
    let mut command = here.command(&["run", "script.rhai"]);
    command.env("LD_LIBRARY_PATH", folder.path()).env("EMULATED_GPUS", "2");
    Outcome::of(command.output().unwrap()).ok();
    same(&here, &there, "x");
}

#[test]
fn a_rented_machine_without_cublas_is_given_back_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    emulate_driver(folder.path());
    let fake = pods_with(folder.path());
    let project = Project::new();
    project.file("script.rhai", format!("{RENT}print(\"provisioned\");"));
    let outcome = Outcome::of(command(&project, &fake, &["run", "script.rhai"]).output().unwrap()).ends(3);
    let error = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("no GPU computes there: no CUDA: the library libcublas.so is not found"), "{error}");
    let hint = outcome.stderr.lines().find(|line| line.starts_with("  hint: ")).unwrap();
    assert!(hint.contains("leave `image` out") && hint.contains("docs/gpu.md"), "{hint}");
    assert_eq!(outcome.stdout, "");
    assert_eq!(fake.created(), 1, "the image is at fault, not the machine");
    clean(&fake, &outcome);
}

/// A machine that costs nothing may be used without its GPU, and a machine without a driver has
/// none, but messages distinguish the two.
#[test]
fn whoever_uses_a_machine_is_told_that_no_gpu_computes_there() {
    let folder = tempfile::tempdir().unwrap();
    emulate_driver(folder.path());
    let device = |sshd: &Sshd| {
        let work = "print(gpu.load_model(gpu.miniature_model(\"olmoe\").path).device);";
        let project = project_with(sshd);
        project.file("script.rhai", format!("{}{work}", provision(sshd)));
        let output = project.command(&["run", "script.rhai"]).env("OUTLIER_WORKER", stripped()).output();
        let outcome = Outcome::of(output.unwrap()).ends(0);
        assert_eq!(outcome.stdout, "cpu\n", "{}", outcome.stderr);
        let told = |line: &&str| line.contains("device \"auto\": the CPU computes; no CUDA: ");
        let told: Vec<_> = outcome.stderr.lines().filter(told).map(str::to_string).collect();
        assert_eq!(told.len(), 1, "{}", outcome.stderr);
        told[0].clone()
    };
    let bare = device(&Sshd::start());
    assert!(bare.contains("NVIDIA's driver is not installed"), "{bare}");
    let without_cublas = device(&Sshd::start_with(&[("LD_LIBRARY_PATH", folder.path().to_str().unwrap())]));
    assert!(without_cublas.contains("the library libcublas.so is not found; install it"), "{without_cublas}");
}
