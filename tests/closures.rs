//! Functions of arrays and maps that ask a closure: every answer counts, or is an error; and errors of the language where they are caught.

use crate::project::Project;

/// Runs a script, and gives what it prints.
fn printed(script: &str) -> String {
    Project::new().script(script).ok()
}

/// What a script says that fails.
fn refused(script: &str) -> String {
    Project::new().script(script).ends(1).stderr
}

#[test]
fn a_comparison_by_the_difference_of_floats_left_the_list_unsorted() {
    let sorted = "let l = [60.65, 39.69, 0.5, 41.0, -2.0]; l.sort(|x, y| x - y); print(l);";
    assert_eq!(printed(sorted), "[-2.0, 0.5, 39.69, 41.0, 60.65]\n");
    assert_eq!(printed("print([3, 1, 2].order(|x, y| y - x));"), "[3, 2, 1]\n");
    assert_eq!(printed("print([3, 1, 2].order_by(|x, y| x <= y));"), "[1, 2, 3]\n");
    // Equal items keep their order.
    let stable = "print([[1, \"b\"], [0, \"x\"], [1, \"a\"]].order(|x, y| x[0] - y[0]).map(|p| p[1]));";
    assert_eq!(printed(stable), "[\"x\", \"b\", \"a\"]\n");
    let many = "let l = []; for i in 0..1000 { l.push((i * 7919) % 1000); } l.sort(|x, y| x - y);
                for i in 0..1000 { if l[i] != i { throw `${i}: ${l[i]}`; } }";
    printed(many);
}

#[test]
fn what_a_comparison_throws_was_lost() {
    for (comparison, said) in [
        ("throw \"boom\"", "boom"),
        ("x.nope - y.nope", "nope"),
        ("()", "sort: the function gave (), expected a number"),
        ("\"less\"", "sort: the function gave less of type string"),
        ("0.0 / 0.0", "sort: the function gave NaN"),
    ] {
        let text = refused(&format!("let l = [2, 1]; l.sort(|x, y| {comparison});"));
        assert!(text.contains(said), "{comparison}: {text}");
    }
    let kept = "let l = [2, 1]; try { l.sort(|x, y| throw \"no\"); } catch {} print(l);";
    assert_eq!(printed(kept), "[2, 1]\n");
}

#[test]
fn answers_that_are_none_counted_as_no() {
    for call in [
        "[1, 2, 3].filter(|x| x)",
        "[1, 2].all(|x| 1)",
        "[1, 2].some(|x| ())",
        "[1, 2].index_of(|x| 1)",
        "[1, 2].find(|x| \"yes\")",
        "l.retain(|x| 1)",
        "l.drain(|x| 0)",
        "l.dedup(|x, y| 1)",
        "#{ a: 1 }.filter(|k, v| v)",
        "m.retain(|k| 1)",
        "m.drain(|k| 1)",
    ] {
        let script = format!("let l = [1, 2]; let m = #{{ a: 1 }}; {call};");
        let text = refused(&script);
        assert!(text.contains("expected true or false"), "{call}: {text}");
    }
    let kept = "let l = [1, 2, 3]; try { l.retain(|x| if x < 3 { true } else { () }); } catch {} print(l);";
    assert_eq!(printed(kept), "[1, 2, 3]\n");
}

#[test]
fn predicates_see_the_item_its_index_and_this() {
    let script = r#"
        const L = [5, 6, 7, 8];
        print(L.filter(|x| x > 6)); print(L.filter(|x, i| i % 2 == 0)); print(L.filter(|| this > 7));
        print(L.all(|x| x > 4)); print(L.some(|x| x > 8)); print([].all(|x| 1)); print([].some(|x| 1));
        print(L.index_of(|x| x > 6)); print(L.index_of(|x| x > 4, 2)); print(L.index_of(|x| x > 4, -1));
        print(L.index_of(|x| x > 9)); print(L.index_of(6)); print(L.find(|x| x > 5)); print(L.find(|x| x > 9));
        let l = [1, 2, 3, 4]; print(l.retain(|x| x > 2)); print(l); print(l.drain(|x| x == 3)); print(l);
        let l = [1, 1, 2, 2, 1]; l.dedup(|x, y| x == y); print(l);
        let m = #{ a: 1, b: 2 }; print(m.filter(|k, v| v > 1)); print(m.drain(|k| k == "a")); print(m);
    "#;
    let expected = "[7, 8]\n[5, 7]\n[8]\ntrue\nfalse\ntrue\nfalse\n2\n2\n3\n-1\n1\n6\n\n[1, 2]\n[3, 4]\n[3]\n[4]\n[1, 2, 1]\n\
                    #{\"b\": 2}\n#{\"a\": 1}\n#{\"b\": 2}\n";
    assert_eq!(printed(script), expected);
}

#[test]
fn lists_with_nan_stayed_unsorted_and_mixed_numbers_were_refused() {
    assert!(refused("[2.0, 0.0 / 0.0, 1.0].sort();").contains("item 1 is NaN"));
    assert_eq!(printed("let l = [2, 1.5, -1]; l.sort(); print(l);"), "[-1, 1.5, 2]\n");
    assert_eq!(
        printed("let l = [\"b\", \"a\"]; l.sort_desc(); print(l); print([2, 3].order_desc());"),
        "[\"b\", \"a\"]\n[3, 2]\n"
    );
    let text = refused("let l = [#{ x: 1 }, #{ x: 2 }]; l.sort();");
    assert!(text.contains("have no order") && text.contains("sort(|a, b| a.x - b.x)"), "{text}");
}

#[test]
fn errors_of_the_language_had_no_kind_and_no_hint() {
    for (wrong, kind, message, hint) in [
        ("nope(1)", "script", "nope", "outlier doc"),
        ("load_modle(\"m\")", "script", "load_modle", "did you mean `load_model`?"),
        ("let a = [1]; a[3]", "script", "1", "the first item is [0]"),
        ("let m = #{ a: 1 }; m.b", "script", "b", "print(value.keys())"),
        ("1 / 0", "script", "zero", "numbers with a point"),
        ("let n = 5; for i in n {}", "script", "iterable", "arrays, ranges"),
        ("qqzz + 1", "script", "qqzz", "misspelt"),
        ("throw \"boom\"", "thrown", "boom", ""),
        ("throw #{ kind: \"own\", message: \"boom\", hint: \"so\" }", "own", "boom", "so"),
        ("load_model(\"nowhere\")", "not_found", "nowhere", ""),
    ] {
        let said = printed(&format!(
            "try {{ {wrong}; }} catch (e) {{ print(e.kind); print(e.message); print(`hint: ${{e.hint}}`); }}"
        ));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], kind, "{wrong}: {said}");
        assert!(lines[1].contains(message) && lines[2].contains(hint), "{wrong}: {said}");
    }
    let caught = "try { nope(1); } catch(e) { print(e.kind + (\"hint\" in e) + e.error); }";
    assert_eq!(printed(caught), "scripttrueErrorFunctionNotFound\n");
    let text = refused("let figure = #{ title: \"x\" }; print(figure.kind);");
    assert!(text.contains("no field `kind`"), "{text}");
}

#[test]
fn a_closure_that_uses_what_it_is_called_on_is_told_what_to_do() {
    for (script, message) in [
        ("let m = #{ n: 1 }; m.more = |by| m.n + by; m.more(2);", "this closure uses the value that it is called on"),
        ("let a = [3, 1]; a.map(|x| x + a.len());", "`map` works on a value that the closure given to it uses as well"),
        ("let a = [3, 1]; a.retain(|x| x < a.len());", "`retain` works on a value that the closure"),
    ] {
        let outcome = Project::new().script(script).ends(1);
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains("let copy = value;"), "{}", outcome.stderr);
        let caught = format!("try {{ {script} }} catch (e) {{ print(e.message); print(e.hint); }}");
        let said = Project::new().script(&caught).ok();
        assert!(said.contains(message) && said.contains("let copy = value;"), "{said}");
    }
    // What the hint says works.
    let said = Project::new().script(
        "let m = #{ n: 1 }; m.more = |by| this.n + by; print(m.more(2)); let a = [3, 1]; let copy = a; print(a.map(|x| x + copy.len()));",
    );
    assert_eq!(said.ok(), "3\n[5, 3]\n");
}
