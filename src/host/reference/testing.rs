//! Primitives of tests, as scripts see them. The simulated environment exists only under `outlier
//! test`.

use super::primitive::{Area, Primitive};

pub(super) const AREA: Area = Area {
    title: "Tests",
    about: "For files *_test.rhai, run by `outlier test`. Under it machines are played by this one, cost nothing, and time is a number.",
    primitives: &[
        Primitive {
            name: "assert",
            signatures: &["assert(condition: bool) -> ()", "assert(condition: bool, message: string) -> ()"],
            summary: "Fails unless the condition holds.",
            options: &[],
            example: r#"assert(1 + 1 == 2, "arithmetic");"#,
        },
        Primitive {
            name: "assert_eq",
            signatures: &["assert_eq(actual: any, expected: any) -> ()"],
            summary: "Fails unless both are equal, and shows where they differ.",
            options: &[],
            example: r#"assert_eq(#{ a: [1, 2] }, #{ a: [1, 2] });"#,
        },
        Primitive {
            name: "assert_close",
            signatures: &[
                "assert_close(actual: number, expected: number) -> ()",
                "assert_close(actual: number, expected: number, tolerance: number) -> ()",
            ],
            summary: "Fails unless the numbers differ by at most the tolerance, 1e-6 where none is given.",
            options: &[],
            example: r#"assert_close(0.1 + 0.2, 0.3);"#,
        },
        Primitive {
            name: "assert_throws",
            signatures: &["assert_throws(work: function) -> any", "assert_throws(kind: string, work: function) -> any"],
            summary: "Calls a function that must throw, an error of this kind where one is given; gives what was thrown.",
            options: &[],
            example: r#"let error = assert_throws("not_found", || load_model("nowhere"));
print(error.hint);"#,
        },
        Primitive {
            name: "fake_failure",
            signatures: &["fake_failure(primitive: string, kind: string) -> ()"],
            summary: "In a test: the next call to this primitive throws an error of this kind.",
            options: &[],
            example: r#"fake_failure("provision_gpu", "no_capacity");
assert_throws("no_capacity", || provision_gpu(#{ provider: "runpod" }));"#,
        },
        Primitive {
            name: "fake_machines",
            signatures: &["fake_machines() -> array"],
            summary: "In a test: all machines so far, each with provider, gpu, price, hours, cost, task and alive.",
            options: &[],
            example: r#"let gpu = provision_gpu(#{ provider: "runpod", gpu: "A100" });
assert(fake_machines()[0].alive);
gpu.terminate();
assert(!fake_machines()[0].alive);"#,
        },
        Primitive {
            name: "fake_clock",
            signatures: &["fake_clock() -> float"],
            summary: "In a test: seconds that have passed. `sleep` lets time pass without waiting.",
            options: &[],
            example: r#"sleep(3600);
assert_eq(fake_clock(), 3600.0);"#,
        },
    ],
};
