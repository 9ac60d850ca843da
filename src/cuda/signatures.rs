//! Tests that the table of kernels agrees with their source and with the PTX in the program.

use super::declare::Signature;
use super::ptx;
use super::table::table;

const KERNEL: &str = "extern \"C\" __global__ void ";

/// The kernels that a source declares, including those declared by a macro whose first parameter is
/// the name.
fn declared(file: &str, source: &str) -> Vec<Signature> {
    // The preprocessor joins the lines of a macro.
    let source = source.replace("\\\n", " ");
    let mut found = Vec::new();
    for (at, _) in source.match_indices(KERNEL) {
        let (name, rest) = source[at + KERNEL.len()..].split_once('(').expect("parameters");
        let (parameters, _) = rest.split_once(')').expect("an end of the parameters");
        let line = source[..at].rsplit('\n').next().unwrap_or_default();
        let names = match line.strip_prefix("#define ") {
            None => vec![name],
            Some(makro) => {
                let (makro, first) = makro.split_once('(').expect("parameters of a macro");
                assert!(first.starts_with(&format!("{name},")), "{makro}: the name of a kernel comes first");
                let uses = source.lines().filter_map(|line| line.strip_prefix(makro)?.strip_prefix('('));
                uses.map(|rest| rest.split([',', ')']).next().unwrap_or_default().trim()).collect()
            }
        };
        let parameters: Vec<(String, String)> = parameters.split(',').map(parameter).collect();
        found.extend(names.into_iter().map(|name| Signature {
            file: file.to_string(),
            name: name.to_string(),
            parameters: parameters.clone(),
        }));
    }
    found
}

/// Name and type of a parameter.
fn parameter(text: &str) -> (String, String) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (kind, name) = words.rsplit_once(' ').expect("a type and a name");
    let stars = name.chars().take_while(|letter| *letter == '*').count();
    (name[stars..].to_string(), format!("{kind}{}", &name[..stars]))
}

/// Descriptions of the differences between the table and the source.
fn differences(table: &[Signature], source: &[Signature]) -> Vec<String> {
    let without = |these: &[Signature], those: &[Signature], what: &str| {
        let missing = these.iter().filter(|one| !those.contains(one));
        missing.map(|one| format!("{what}: {} of {}.cu {:?}", one.name, one.file, one.parameters)).collect()
    };
    let only_table: Vec<String> = without(table, source, "only the table has");
    [only_table, without(source, table, "only the source has")].concat()
}

/// Name (without extension) and text of every source.
fn sources() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/kernels");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let name = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().to_string();
    sources.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

fn all_declared(sources: &[(String, String)]) -> Vec<Signature> {
    sources.iter().flat_map(|(file, source)| declared(file, source)).collect()
}

#[test]
fn the_table_says_what_the_source_of_the_kernels_says() {
    let declared = all_declared(&sources());
    assert_eq!(differences(&table(), &declared), [""; 0]);
    assert_eq!(table().len(), declared.len(), "every kernel is there once");
    assert!(declared.len() > 20, "{declared:?}");
}

#[test]
fn a_source_that_says_something_else_is_found() {
    let changes = [
        // Changes of a name, an element type, an array's constness, a type, a count, an order, a
        // parameter's name, and so on.
        ("void add_bias(", "void add_biases("),
        ("const float* bias, u64 count", "const bf16* bias, u64 count"),
        ("float* y, const float* bias", "const float* y, const float* bias"),
        ("const float* bias, u64 count, u32 columns) {\n", "const float* bias, u32 count, u32 columns) {\n"),
        ("const float* bias, u64 count, u32 columns) {\n", "const float* bias, u64 count) {\n"),
        ("float* y, const float* bias", "const float* bias, float* y"),
        ("u64 count, u32 columns) {\n", "u64 count, u32 rows) {\n"),
        ("DELTA_RULE(delta_rule_64, 64)", "DELTA_RULE(delta_rule_32, 32)"),
        ("const float* dt_bias, u32 heads, u32 group,", "const float* dt_bias, u32 heads,"),
        ("extern \"C\" __global__ void scatter(", "__global__ void scatter("),
    ];
    for (from, to) in changes {
        let mut sources = sources();
        assert!(sources.iter().any(|(_, source)| source.contains(from)), "{from}");
        sources.iter_mut().for_each(|(_, source)| *source = source.replace(from, to));
        assert!(!differences(&table(), &all_declared(&sources)).is_empty(), "{from} became {to}");
    }
    let mut moved = sources();
    moved.iter_mut().filter(|(file, _)| file == "norm").for_each(|(file, _)| *file = "experts".to_string());
    assert!(!differences(&table(), &all_declared(&moved)).is_empty(), "norm.cu became experts.cu");
}

/// The PTX type of a parameter, which only has its size.
fn in_ptx(kind: &str) -> &'static str {
    match kind {
        kind if kind.ends_with('*') => ".u64",
        "u64" => ".u64",
        "u32" => ".u32",
        "float" => ".f32",
        other => panic!("{other} is no type of a parameter"),
    }
}

#[test]
fn the_program_carries_the_kernels_of_the_table() {
    let mut carried = Vec::new();
    for (file, text) in ptx::FILES {
        for name in ptx::kernels(text) {
            let (_, rest) = text.to_str().unwrap().split_once(&format!(".visible .entry {name}(")).unwrap();
            let (parameters, _) = rest.split_once(')').unwrap();
            let kinds = parameters.split(".param ").skip(1).map(|parameter| parameter.split(' ').next().unwrap());
            carried.push((file.to_string(), name.to_string(), kinds.map(str::to_string).collect::<Vec<_>>()));
        }
    }
    let kinds = |one: &Signature| one.parameters.iter().map(|(_, kind)| in_ptx(kind).to_string()).collect();
    let mut expected: Vec<_> = table().iter().map(|one| (one.file.clone(), one.name.clone(), kinds(one))).collect();
    carried.sort();
    expected.sort();
    assert_eq!(carried, expected);
}
