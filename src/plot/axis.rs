//! Scales from values to coordinates, and the choice of ticks.

use super::figure::Axis;
use crate::words::rounded;

/// The approximate number of ticks on an axis.
const TICKS: f64 = 6.0;

/// A linear or logarithmic scale from values to coordinates.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    log: bool,
    whole: bool,
    low: f64,
    high: f64,
    from: f32,
    to: f32,
}

impl Scale {
    /// A scale over the finite `values` with a small margin, or between the ends of `axis`. Returns
    /// `None` if there is no finite value.
    pub(super) fn new(axis: &Axis, values: impl Iterator<Item = f64>, from: f32, to: f32) -> Option<Self> {
        let usable = values.filter(|v| v.is_finite() && !(axis.log && *v <= 0.0));
        let (mut low, mut high) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        if axis.log {
            (low, high) = (low.ln(), high.ln());
        }
        let room = if high > low { 0.05 * (high - low) } else { 0.5 * high.abs().max(1.0) };
        let ends_at_zero = !axis.log && low >= 0.0 && low < 0.35 * high;
        let end = |given: Option<f64>, found: f64| given.map_or(found, |end| if axis.log { end.ln() } else { end });
        let mut low = end(axis.min, if ends_at_zero { 0.0 } else { low - room });
        let mut high = end(axis.max, high + room);
        let (log, whole) = (axis.log, axis.whole);
        if whole && !log {
            (low, high) = (low.floor(), high.ceil());
        }
        (low.is_finite() && high.is_finite() && high > low).then_some(Self { log, whole, low, high, from, to })
    }

    /// The coordinate of a value. A value beyond the ends gets the coordinate of the end.
    pub(super) fn at(&self, value: f64) -> f32 {
        let value = if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let part = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + (self.to - self.from) * part as f32
    }

    /// The values of the ticks, and their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let within = |value: &f64| {
            let place = if self.log { value.ln() } else { *value };
            let slack = 1e-9 * (self.high - self.low);
            place >= self.low - slack && place <= self.high + slack
        };
        let sort = |value: &f64| !self.whole || value.fract() == 0.0;
        let shown = |values: Vec<f64>| values.into_iter().filter(within).filter(sort).collect::<Vec<_>>();
        let values = match self.log {
            false => shown(linear_values(self.low, self.high, self.whole)),
            true => {
                let values = shown(self.log_values());
                // A part of a decade has at most one of them, which is not enough to read values
                // from.
                if values.len() > 1 {
                    values
                } else {
                    shown(linear_values(self.low.exp(), self.high.exp(), self.whole))
                }
            }
        };
        values.into_iter().map(|value| (value, text(value))).collect()
    }

    /// Returns 1, 2 and 5 of every decade if there are few decades, and otherwise the powers of
    /// ten.
    fn log_values(&self) -> Vec<f64> {
        let decades =
            (self.low / std::f64::consts::LN_10).floor() as i32..=(self.high / std::f64::consts::LN_10).ceil() as i32;
        let few = (self.high - self.low) / std::f64::consts::LN_10 <= 4.0;
        let every = (decades.clone().count() as i32 / 6).max(1);
        let steps: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        decades.filter(|d| d % every == 0).flat_map(|d| steps.iter().map(move |m| m * 10f64.powi(d))).collect()
    }
}

/// Returns multiples of 1, 2 or 5 times a power of ten, which is at least 1 for whole numbers.
fn linear_values(low: f64, high: f64, whole: bool) -> Vec<f64> {
    let rough = (high - low) / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let step = if whole { step.max(1.0) } else { step };
    let first = (low / step).ceil() as i64;
    (first..=(high / step).floor() as i64).map(|i| i as f64 * step).collect()
}

/// Formats a number as short as possible: 0.25, 40, 20,000, 1.5M.
pub(super) fn text(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = rounded(value, 2);
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        v if !v.is_finite() => value.to_string(),
        v if v >= 1e12 => short(value / 1e12, "T"),
        v if v >= 1e9 => short(value / 1e9, "G"),
        v if v >= 1e6 => short(value / 1e6, "M"),
        v if v >= 1e4 => short(value / 1e3, "k"),
        v if v >= 0.01 || v == 0.0 => short(value, ""),
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: Axis, values: &[f64]) -> Vec<String> {
        let scale = Scale::new(&axis, values.iter().copied(), 0.0, 100.0).unwrap();
        scale.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(Axis::default(), &[0.0, 97.0]), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(
            ticks(Axis { log: true, ..Axis::default() }, &[3.0, 900.0]),
            ["5", "10", "20", "50", "100", "200", "500", "1000"]
        );
        assert_eq!(
            ticks(Axis { min: Some(0.0), max: Some(1.0), ..Axis::default() }, &[0.3]),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(ticks(Axis { log: true, ..Axis::default() }, &[1.0, 1e9]), ["1", "100", "10k", "1M", "100M"]);
    }

    #[test]
    fn counts_have_whole_numbers() {
        let counts = Axis { whole: true, min: Some(0.0), ..Axis::default() };
        assert_eq!(ticks(counts.clone(), &[0.0, 1.0]), ["0", "1", "2"]);
        assert_eq!(ticks(counts.clone(), &[0.0, 3.0]), ["0", "1", "2", "3", "4"]);
        assert_eq!(ticks(counts, &[0.0, 97.0]), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(ticks(Axis { whole: true, ..Axis::default() }, &[3.0]), ["1", "2", "3", "4", "5"]);
        assert_eq!(ticks(Axis { whole: true, log: true, ..Axis::default() }, &[0.4, 9.0]), ["1", "2", "5", "10"]);
    }

    #[test]
    fn an_axis_has_two_ticks_at_least() {
        for (low, high) in [(4.1, 7.0), (5.5, 9.3), (3.2e6, 7.9e6), (1.01, 1.02), (11.0, 19.0), (6.0, 6.0), (1.0, 1e12)]
        {
            for log in [true, false] {
                let ticks = ticks(Axis { log, ..Axis::default() }, &[low, high]);
                assert!(ticks.len() > 1, "{low} to {high}, log {log}: {ticks:?}");
            }
        }
    }

    #[test]
    fn places_run_between_the_ends() {
        let axis = Axis { min: Some(0.0), max: Some(10.0), ..Axis::default() };
        let scale = Scale::new(&axis, [5.0].into_iter(), 100.0, 0.0).unwrap();
        assert_eq!((scale.at(0.0), scale.at(5.0), scale.at(99.0)), (100.0, 50.0, 0.0));
    }

    #[test]
    fn without_a_value_there_is_no_scale() {
        assert!(Scale::new(&Axis::default(), [f64::NAN].into_iter(), 0.0, 1.0).is_none());
        assert!(Scale::new(&Axis { log: true, ..Axis::default() }, [0.0, -1.0].into_iter(), 0.0, 1.0).is_none());
        assert!(Scale::new(&Axis::default(), [2.0, 2.0].into_iter(), 0.0, 1.0).is_some());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.25, 6.0, 2048.0, 20_000.0, 1.5e6, 3e10, 0.001].map(text),
            ["0", "0.25", "6", "2048", "20k", "1.5M", "30G", "1e-3"]
        );
    }
}
