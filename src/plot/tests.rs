//! Renders every kind of figure as SVG and PNG and checks that it is well formed, complete and
//! within the page.

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
fn a_line_was_drawn_over_points_without_a_value() {
    let lines = |points: serde_json::Value| {
        let of = serde_json::json!({ "kind": "lines", "title": "t", "series": [{ "points": points }] });
        svg(&figure(of)).unwrap().matches("stroke-width=\"2.2\"").count()
    };
    let at = |x: usize, y: Option<f64>| serde_json::json!({ "x": x, "y": y });
    let whole: Vec<_> = (0..5).map(|x| at(x, Some(1.0 + x as f64))).collect();
    assert_eq!(lines(whole.clone().into()), 1);
    let mut gap = whole;
    gap[2] = at(2, None);
    assert_eq!(lines(gap.into()), 2);
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
fn bars_are_as_wide_as_their_bins() {
    let bins = serde_json::json!({ "kind": "bars", "title": "Bins", "x": { "log": true }, "edges": [1, 2, 8, 16],
        "groups": [{ "name": "a", "values": [5, 4, 3] }] });
    let text = svg(&figure(bins)).unwrap();
    let widths: Vec<f64> = ["1 to 2: 5", "2 to 8: 4", "8 to 16: 3"]
        .iter()
        .map(|tip| {
            let bar = text.lines().find(|line| line.contains(tip)).unwrap_or_else(|| panic!("{tip}"));
            bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        })
        .collect();
    assert!((widths[1] / widths[0] - 2.0).abs() < 0.01 && (widths[2] / widths[0] - 1.0).abs() < 0.01, "{widths:?}");
    let wrong =
        serde_json::json!({ "kind": "bars", "title": "Bins", "edges": [1, 2], "groups": [{ "values": [5, 4] }] });
    assert!(svg(&figure(wrong)).unwrap_err().message.contains("one more than each group has values"));
}

/// A group with an explicit style keeps it, whichever other groups there are.
#[test]
fn a_style_of_ones_own_stays() {
    let row = |name: &str, style: usize| serde_json::json!({ "name": name, "value": 1, "group": name, "style": style });
    let fill = |rows: Vec<serde_json::Value>| {
        let text = svg(&figure(serde_json::json!({ "kind": "intervals", "title": "x", "rows": rows }))).unwrap();
        let line = text.lines().find(|line| line.contains("<title>b: 1</title>")).unwrap();
        line.split("fill=\"").nth(1).unwrap().split('"').next().unwrap().to_string()
    };
    assert_eq!(fill(vec![row("b", 4)]), fill(vec![row("a", 2), row("c", 9), row("b", 4)]));
}

/// Ratios are seen against a line at 1, which is on the axis even where no value is near it.
#[test]
fn intervals_have_a_marked_line() {
    let of = |mark: Option<f64>| {
        let rows = serde_json::json!([{ "name": "a", "value": 8.0, "low": 7.0, "high": 9.0 }]);
        let mut json = serde_json::json!({ "kind": "intervals", "title": "x", "rows": rows });
        mark.into_iter().for_each(|mark| json["mark"] = mark.into());
        svg(&figure(json)).unwrap()
    };
    let dashed = |text: &str| text.matches("stroke-dasharray").count();
    assert_eq!(dashed(&of(Some(1.0))), dashed(&of(None)) + 1);
    assert!(of(Some(1.0)).contains(">2</text>") && !of(None).contains(">2</text>"), "{}", of(Some(1.0)));
}

/// The name of the marked line is drawn after the series, on a background of its own, and away from
/// their points.
#[test]
fn no_line_crosses_the_name_of_the_mark() {
    let near = (12..20).map(|i| serde_json::json!({ "x": i, "y": 4.05 }));
    let points: Vec<_> = near.chain([serde_json::json!({ "x": 12, "y": 8.0 })]).collect();
    let text = svg(&figure(serde_json::json!({ "kind": "lines", "title": "x", "mark": 4.0, "mark_label": "limit",
        "x": { "min": 0.0, "max": 20.0 }, "series": [{ "points": points }] })))
    .unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let label = lines.iter().position(|line| line.contains(">limit</text>")).unwrap();
    let last_series = lines.iter().rposition(|line| line.contains("stroke=\"#0072b2\"")).unwrap();
    assert!(label > last_series && lines[label - 1].contains("fill=\"#ffffff\""), "{}", lines[label - 1]);
    let x: f64 = lines[label].split("x=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    assert!(x < 300.0, "at the end of the line that is free: {x}");
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

/// Series differ without colour, too: there are twelve markers and ten dash patterns.
#[test]
fn series_differ_in_form() {
    let name = |i: usize| format!("s{i:02}");
    let point = serde_json::json!([{ "x": 1, "y": 1 }]);
    let series: Vec<_> = (0..12).map(|i| serde_json::json!({ "name": name(i), "points": point })).collect();
    let points = svg(&figure(serde_json::json!({ "kind": "points", "title": "x", "series": series }))).unwrap();
    // All series have the same points, so that equal forms give equal text.
    let form = |i: usize| {
        let line = points.lines().find(|line| line.contains(&format!("<title>{}: ", name(i)))).unwrap();
        line.split(" fill=").next().unwrap().to_string()
    };
    let forms: std::collections::BTreeSet<String> = (0..12).map(form).collect();
    assert_eq!(forms.len(), 12, "{forms:?}");
    let two = serde_json::json!([{ "x": 1, "y": 1 }, { "x": 2, "y": 2 }]);
    let series: Vec<_> = (0..10).map(|i| serde_json::json!({ "name": name(i), "points": two })).collect();
    let lines = svg(&figure(serde_json::json!({ "kind": "lines", "title": "x", "series": series }))).unwrap();
    let dashes: std::collections::BTreeSet<&str> =
        lines.lines().filter_map(|line| line.split("stroke-dasharray=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(dashes.len(), 9, "and one without gaps: {dashes:?}");
}

#[test]
fn a_legend_says_what_it_leaves_out() {
    let point = serde_json::json!([{ "x": 1, "y": 1 }]);
    let with = |count: usize| {
        let series: Vec<_> =
            (0..count).map(|i| serde_json::json!({ "name": format!("s{i:02}"), "points": point })).collect();
        svg(&figure(serde_json::json!({ "kind": "points", "title": "x", "series": series }))).unwrap()
    };
    assert!(!with(12).contains(" more</text>"));
    let text = with(40);
    let named = (0..40).filter(|i| text.contains(&format!(">s{i:02}</text>"))).count();
    assert!(named > 12 && text.contains(&format!(">and {} more</text>", 40 - named)), "{named}");
}

#[test]
fn a_name_that_stands_apart_is_joined_to_its_point() {
    let lines = |points: serde_json::Value| {
        let figure =
            serde_json::json!({ "kind": "points", "title": "x", "series": [{ "name": "s", "points": points }] });
        svg(&self::figure(figure)).unwrap().matches("stroke-width=\"0.8\"").count()
    };
    let point = |y: f64, name: &str| serde_json::json!({ "x": 1.0, "y": y, "label": name });
    assert_eq!(lines(serde_json::json!([point(1.0, "one"), point(5.0, "two")])), 0);
    // If many points lie at one place, only the first names find space.
    let crowd: Vec<_> = (0..8).map(|i| point(1.0, &format!("point {i}"))).collect();
    let joined = lines(serde_json::json!(crowd));
    assert!((1..8).contains(&joined), "{joined}");
}
