//! Every kind of figure as SVG and PNG: well formed, with everything in it, on the page.

use super::*;

fn figure(json: serde_json::Value) -> Figure {
    serde_json::from_value(json).unwrap()
}

fn all() -> Vec<Figure> {
    let points = serde_json::json!([{ "x": 1, "y": 2, "low": 1, "high": 3, "label": "a & b" }, { "x": 10, "y": 5 }]);
    let series = serde_json::json!([{ "name": "one", "points": points }, { "name": "two", "points": points }]);
    let heat: Vec<Vec<f64>> = (0..4).map(|r| (0..6).map(|c| (r * c) as f64 * 2.0).collect()).collect();
    vec![
        figure(
            serde_json::json!({ "kind": "lines", "title": "Lines", "series": series, "mark": 4.0, "mark_label": "limit",
            "x": { "label": "time", "log": true }, "y": { "label": "value" }, "note": "A note <of> two & three words." }),
        ),
        figure(serde_json::json!({ "kind": "points", "title": "Points", "series": series })),
        figure(serde_json::json!({ "kind": "bars", "title": "Bars", "categories": ["a", "b"],
            "groups": [{ "name": "one", "values": [1, 2] }, { "name": "two", "values": [3, 4] }] })),
        figure(serde_json::json!({ "kind": "intervals", "title": "Intervals", "rows": [
            { "name": "first", "value": 2, "low": 1, "high": 3, "group": "g" }, { "name": "second", "value": 4, "group": "h" }] })),
        figure(serde_json::json!({ "kind": "heat_map", "title": "Heat", "values": heat, "threshold": 6.0,
            "columns": [0, 600], "value_label": "max |x|" })),
    ]
}

#[test]
fn every_kind_is_a_well_formed_svg_with_its_words() {
    for (figure, words) in all().iter().zip([
        &["Lines", "time", "value", "limit", "A note &lt;of&gt; two &amp; three words.", "one", "two"][..],
        &["Points", "a &amp; b", "one"],
        &["Bars", "<title>two, b: 4</title>"],
        &["Intervals", "first", "<title>first: 2 [1, 3]</title>", "g", "h"],
        &["Heat", "max |x|", "600", "≤ 1.5"],
    ]) {
        let svg = svg(figure).unwrap();
        for word in words {
            assert!(svg.contains(word), "{word} is not in {}", figure.title);
        }
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        for name in ["rect", "circle", "polygon", "text", "title"] {
            let opened = svg.matches(&format!("<{name}")).count();
            let empty =
                svg.lines().filter(|line| line.starts_with(&format!("<{name}")) && line.ends_with("/>")).count();
            assert_eq!(opened, svg.matches(&format!("</{name}>")).count() + empty, "{name} in {}", figure.title);
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{}", figure.title);
    }
}

#[test]
fn every_kind_is_a_png_with_ink_on_it() {
    for figure in all() {
        let bytes = png(&figure).unwrap();
        let pixmap = tiny_skia::Pixmap::decode_png(&bytes).unwrap();
        assert_eq!(pixmap.width(), 1800);
        let dark = pixmap.pixels().iter().filter(|p| p.red() < 200).count();
        let all = pixmap.pixels().len();
        assert!(dark > 3000 && dark < all * 2 / 3, "{}: {dark} of {all}", figure.title);
    }
}

#[test]
fn equal_figures_are_equal_bytes() {
    for figure in all() {
        assert_eq!(png(&figure).unwrap(), png(&figure).unwrap());
        assert_eq!(svg(&figure).unwrap(), svg(&figure).unwrap());
    }
}

#[test]
fn nothing_to_draw_is_an_error() {
    let nothing = [
        serde_json::json!({ "kind": "lines", "title": "x", "series": [] }),
        serde_json::json!({ "kind": "points", "title": "x", "series": [{ "points": [] }] }),
        serde_json::json!({ "kind": "bars", "title": "x", "categories": [], "groups": [] }),
        serde_json::json!({ "kind": "intervals", "title": "x", "rows": [] }),
        serde_json::json!({ "kind": "heat_map", "title": "x", "values": [[0.0, 0.0]] }),
    ];
    for nothing in nothing {
        assert!(svg(&figure(nothing)).unwrap_err().message.contains("nothing to draw"));
    }
    let ragged = serde_json::json!({ "kind": "heat_map", "title": "x", "values": [[1.0, 2.0], [1.0]] });
    assert!(svg(&figure(ragged)).unwrap_err().message.contains("differ in length"));
}
