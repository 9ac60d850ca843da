//! Charts in plain text for the terminal.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// One character per value, from 0 to the largest. A value that is not finite is a gap.
pub fn sparkline(values: &[f64]) -> String {
    let largest = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let level = |value: &f64| match value.is_finite() && largest > 0.0 {
        true => LEVELS[((value.max(0.0) / largest * 8.0).ceil() as usize).clamp(1, 8) - 1],
        false if value.is_finite() => LEVELS[0],
        false => ' ',
    };
    values.iter().map(level).collect()
}

/// One bar per line, with its name before and its value after it. The longest bar has `width`
/// characters.
pub fn bar_chart(names: &[String], values: &[f64], width: usize) -> String {
    let largest = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, &value) in names.iter().zip(values) {
        let eighths = match value.is_finite() && largest > 0.0 {
            true => (value.max(0.0) / largest * width as f64 * 8.0).round() as usize,
            false => 0,
        };
        let mut bar: String = std::iter::repeat_n('█', eighths / 8).collect();
        if eighths % 8 > 0 {
            bar.push(EIGHTHS[eighths % 8]);
        }
        text += &format!("{name:>widest$} {bar} {}\n", super::axis::text(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_fills_the_line() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0, f64::NAN]), "▁▁▄█ ");
        assert_eq!(sparkline(&[0.0, 0.0]), "▁▁");
        let chart = bar_chart(&["a".into(), "bcd".into()], &[2.0, 4.0], 4);
        assert_eq!(chart, "  a ██ 2\nbcd ████ 4\n");
        assert_eq!(bar_chart(&["a".into()], &[0.0], 4), "a  0\n");
    }
}
