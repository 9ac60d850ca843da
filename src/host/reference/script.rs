//! Primitives for control flow and output, as scripts see them.

use super::primitive::{Area, Primitive, opt};

pub(super) const FLOW: Area = Area {
    title: "Flags, side by side, logs",
    about: "What the user asked for, work on threads, and one log per piece of work.",
    primitives: &[
        Primitive {
            name: "args",
            signatures: &["args(declared: map) -> map"],
            summary: "Declares the flags of the script and reads what the user gave. A default tells the type: false is a switch, a \
                      number or string takes one value, an array all that follow. Each flag is a default, or #{ default, help }.",
            options: &[],
            example: r#"let flags = args(#{
    threshold: #{ default: 6.0, help: "|x| from which a value is a hit" },
    quick: false,
});
print(if flags.quick { 0.0 } else { flags.threshold });"#,
        },
        Primitive {
            name: "is_main",
            signatures: &["is_main() -> bool"],
            summary: "Whether this script was started itself, not imported by another one.",
            options: &[],
            example: r#"if is_main() { print("started itself"); }"#,
        },
        Primitive {
            name: "parallel",
            signatures: &["parallel(items: array, options?: map, work: function) -> array"],
            summary: "Calls a function on every item, on threads. Gives, in order, #{ ok: true, value } or #{ ok: false, error } for each; \
                      one failure leaves the others running. Writes to captured variables stay inside.",
            options: &[
                opt(
                    "max",
                    "int",
                    "all",
                    "items at the same time; 128 at most, those of a `parallel` inside another counted, of which there may be 8",
                ),
                opt("stagger", "float", "0.0", "seconds between the starts of the first items"),
            ],
            example: r#"let squares = parallel([3, 4], #{ max: 2 }, |x| x * x);
print(squares.map(|outcome| outcome.value));"#,
        },
        Primitive {
            name: "report_failure",
            signatures: &["report_failure(what: string, error: any) -> ()"],
            summary: "Tells a failure at once and lets the run go on; it will end with exit code 3. Of a list of errors with one cause the \
                      first is told.",
            options: &[],
            example: r#"try { load_model("nowhere") } catch (error) { report_failure("nowhere", error); }"#,
        },
        Primitive {
            name: "with_log",
            signatures: &["with_log(name: string, work: function) -> any"],
            summary: "Calls a function and adds everything it reports to logs/<name>.log.",
            options: &[],
            example: r#"let answer = with_log("first", || { log("half way"); 42 });
print(answer);"#,
        },
        Primitive {
            name: "last_logged",
            signatures: &["last_logged(name: string) -> map"],
            summary: "The last line of a log: time, age in seconds and text; () where there is none.",
            options: &[],
            example: r#"with_log("first", || 42);
print(last_logged("first").text);"#,
        },
    ],
};

pub(super) const SHOW: Area = Area {
    title: "Showing",
    about: "Data goes to stdout, notes to stderr. print and debug are the language's own.",
    primitives: &[
        Primitive {
            name: "table",
            signatures: &["table(rows: array) -> ()", "table(columns: array, rows: array) -> ()"],
            summary: "Prints rows, each a map, as a table; `columns` chooses and orders. Where the terminal is too narrow, heads are \
                      folded, then long texts are cut, then the last columns are left out and named: put first what matters most. \
                      A file or a pipe gets everything.",
            options: &[],
            example: r#"table(["threshold", "features"], [#{ threshold: 6.0, features: 3 }, #{ threshold: 7.0, features: 1 }]);"#,
        },
        Primitive {
            name: "print_wrapped",
            signatures: &["print_wrapped(text: string) -> ()"],
            summary: "Prints a text whose lines are broken between words where the terminal ends; to a file or a pipe as it is.",
            options: &[],
            example: r#"print_wrapped("A sentence that may be longer than a line of the terminal is broken between its words.");"#,
        },
        Primitive {
            name: "show",
            signatures: &["show(value: any) -> ()"],
            summary: "Prints a value for people, as `outlier repl` does: rows and records as tables, everything else as `print`.",
            options: &[],
            example: r#"show(#{ features: 3, classification: "SYSTEMATIC" });"#,
        },
        Primitive {
            name: "log",
            signatures: &["log(text: string) -> ()"],
            summary: "One line for the user that is not data: to stderr, and to the log of with_log.",
            options: &[],
            example: r#"log("half way");"#,
        },
        Primitive {
            name: "format_bytes",
            signatures: &["format_bytes(bytes: number) -> string"],
            summary: "Bytes with a unit: 1500000 is 1.50 MB.",
            options: &[],
            example: r#"print(format_bytes(1500000));"#,
        },
        Primitive {
            name: "format_count",
            signatures: &["format_count(count: int, one: string) -> string"],
            summary: "A number with what it counts, in the singular for one: 1 feature, 3 features.",
            options: &[],
            example: r#"print(format_count(1, "feature"));"#,
        },
        Primitive {
            name: "format_number",
            signatures: &["format_number(value: number, digits?: int) -> string"],
            summary: "A number with so many decimals; at most four where none are given.",
            options: &[],
            example: r#"print(format_number(2.0 / 3.0, 2));"#,
        },
        Primitive {
            name: "to_json",
            signatures: &["to_json(value: any) -> string"],
            summary: "A record, map or array as JSON.",
            options: &[],
            example: r#"print(#{ features: [1, 2] }.to_json());"#,
        },
        Primitive {
            name: "to_string",
            signatures: &["to_string(value: any) -> string"],
            summary: "A value as text; handles show what they are.",
            options: &[],
            example: r#"print([1, 2].to_string());"#,
        },
        Primitive {
            name: "to_debug",
            signatures: &["to_debug(value: any) -> string"],
            summary: "A value as text for debugging; handles show all their fields.",
            options: &[],
            example: r#"print("a".to_debug());"#,
        },
    ],
};
