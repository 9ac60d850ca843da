//! Tests that the PTX in the program is what NVIDIA's compiler makes of the kernels. Without that
//! compiler, hashes tell when one of the two has changed without the other.

use std::path::Path;
use std::process::Command;

use crate::project::{Outcome, Project, repository};

/// `.ci/ptx` in a copy of what it reads, or in the repository itself.
fn ptx(folder: &Path, verb: &str, compiler: Option<&Path>) -> Outcome {
    let mut command = Command::new("sh");
    command.arg(".ci/ptx").arg(verb).current_dir(folder);
    if let Some(compiler) = compiler {
        command.env("CUDA_HOME", compiler);
    }
    Outcome::of(command.output().unwrap())
}

fn copy() -> Project {
    let project = Project::new();
    for path in [".ci/ptx", ".ci/cuda-compiler", "src/cuda/kernels", "src/cuda/ptx"] {
        project.copy(path, path);
    }
    project
}

#[test]
fn the_ptx_is_what_the_compiler_makes_of_the_kernels() {
    println!("{}", ptx(repository(), "check", None).ok());
}

#[test]
fn a_kernel_that_changed_without_its_ptx_is_found_by_its_hash() {
    let nowhere = Path::new("/nowhere");
    let change = |what: &dyn Fn(&Project)| {
        let project = copy();
        what(&project);
        ptx(&project.path(""), "check", Some(nowhere))
    };
    let append = |path: &'static str, text: &'static str| {
        move |project: &Project| {
            let whole = format!("{}{text}", project.text(path));
            project.file(path, whole);
        }
    };
    let unchanged = change(&|_| ()).ok();
    assert!(unchanged.contains("compared by hashes only: there is no nvcc here"), "{unchanged}");
    let remove = |project: &Project| std::fs::remove_file(project.path("src/cuda/ptx/tap.ptx")).unwrap();
    let add = |project: &Project| _ = project.file("src/cuda/kernels/more.cu", "");
    let option = |project: &Project| {
        let script = project.text(".ci/ptx").replace("oldest=compute_80", "oldest=compute_90");
        project.file(".ci/ptx", script);
    };
    for what in [
        &append("src/cuda/kernels/norm.cu", "// changed\n") as &dyn Fn(&Project),
        &append("src/cuda/kernels/common.cuh", "\n"),
        &append("src/cuda/ptx/norm.ptx", "// changed\n"),
        &remove,
        &add,
        &option,
    ] {
        let outcome = change(what).ends(1);
        assert!(outcome.stderr.contains("`make ptx` makes the PTX anew"), "{}", outcome.stderr);
    }
}

/// With the hashes put right by hand, too.
#[test]
fn ptx_that_the_compiler_would_not_make_is_found_by_compiling() {
    let found = ptx(repository(), "find", None);
    if found.code != 0 {
        return println!("nvcc of the version that the PTX is made with is not here");
    }
    let compiler = repository().join(found.stdout.trim().trim_end_matches("/bin"));
    let project = copy();
    let kernel = project.text("src/cuda/kernels/norm.cu").replace("1.0f + weight[own + i]", "2.0f + weight[own + i]");
    let check = || ptx(&project.path(""), "check", Some(&compiler));
    project.file("src/cuda/kernels/norm.cu", kernel);
    assert!(check().ends(1).stderr.contains("changed, one without the others"));
    project.file("src/cuda/ptx/SHA256SUMS", ptx(&project.path(""), "sums", None).ok());
    let outcome = check().ends(1);
    assert!(outcome.stderr.contains("makes other PTX of the kernels"), "{}{}", outcome.stdout, outcome.stderr);
    ptx(&project.path(""), "make", Some(&compiler)).ok();
    let equal = check().ok();
    assert!(equal.contains("equal to what nvcc") && equal.contains("assembled for sm_80"), "{equal}");
}

#[test]
fn another_version_of_the_compiler_is_told_and_makes_nothing() {
    let project = copy();
    let other = "#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n";
    project.file("toolkit/bin/nvcc", other);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(project.path("toolkit/bin/nvcc"), executable).unwrap();
    let with_it = |verb| ptx(&project.path(""), verb, Some(&project.path("toolkit")));
    let told = with_it("check").ok();
    assert!(told.contains("compared by hashes only: nvcc here is 12.4.131, and the PTX is made with "), "{told}");
    let before = project.text("src/cuda/ptx/SHA256SUMS");
    let outcome = with_it("make").ends(1);
    assert!(outcome.stderr.contains("the PTX is made with nvcc "), "{}", outcome.stderr);
    assert_eq!(project.text("src/cuda/ptx/SHA256SUMS"), before);
}
